"""`warm_start`: what other searches found, and known architectures, are the first proposals of a new study.

    a study              its best completed trials, at most half as many as this study trains; what would come out
                         the same here is taken as it is (importing.py)
    an entry of the zoo  the trial that it came from; or the values that make its architecture
    a shipped model      the values that make its architecture

All others are trained anew, as this study trains: only then are their values comparable. What does not fit these
variables is said and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.display.formats import plural
from miniwin.search.importing import import_trials
from miniwin.search.records import read_study
from miniwin.search.space import Space
from miniwin.search.spec_errors import SpaceError
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData
from miniwin.specs import ModelSpec, SearchSpec, UserError, load_model_spec, shipped_specs
from miniwin.specs.validation_errors import Problem

WARMED = "miniwin_warm_start"  # attribute of the Optuna study: the queue has been filled
FROM = "warm_start"  # attribute of a trial: what it was taken from
MOST_ASSIGNMENTS = 5000  # that are looked through for an architecture: seconds

Found = Iterator[tuple[str, Mapping[str, Any]]]  # where an assignment is from, and the values


def check_sources(spec: SearchSpec) -> None:
    """SpaceError for what `warm_start` names and is not there."""
    problems = []
    for index, ref in enumerate(spec.warm_start):
        try:
            _source(ref)
        except UserError as error:
            problems.append(Problem(("warm_start", index), str(error)))
    if problems:
        raise SpaceError(problems)


def warm_start(study: Study, fingerprint: str) -> list[str]:
    """Fill the queue of a new study; nothing, if that was done. Returns what there is to say, a line for each source.

    fingerprint: of the text that the study trains on. After a kill in between, the same call goes on: what is in the
    queue is not put there twice.
    """
    if not study.spec.warm_start or study.optuna.user_attrs.get(WARMED):
        return []
    return study.locked(lambda: _warm_start(study, fingerprint))


def _warm_start(study: Study, fingerprint: str) -> list[str]:
    said = []
    for ref in study.spec.warm_start:
        found, other = _source(ref), 0
        if isinstance(found, Path):
            data = read_study(found)
            taken = import_trials(study, data, fingerprint)
            fitting, wrong = _fitting(study.space, _of_study(data, taken, study.spec.budget.trials))
            other = len(taken)
        else:
            fitting, wrong = _fitting(study.space, found(study))
        for origin, params in fitting:
            study.optuna.enqueue_trial(params, user_attrs={FROM: origin}, skip_if_exists=True)
        left_out = f"; left out: {some(wrong, 2, '; ')}" if wrong else ""
        as_is = f"{plural(other, 'trial')} taken as they are, " if other else ""
        said.append(f"warm start from {ref}: {as_is}{plural(len(fitting), 'proposal')}{left_out}")
    study.optuna.set_user_attr(WARMED, True)
    return said


def _source(ref: str) -> Path | Callable[[Study], Found]:
    """The folder of a study, or what gives the assignments of another source. UserError if there is no such thing."""
    from miniwin.zoo import ZooError, find

    try:
        folder = find_study(ref)
    except UserError:
        pass
    else:
        return folder
    try:
        entry = find(ref)
    except ZooError:
        pass
    else:
        return lambda study: _of_entry(entry.ref, entry.provenance, entry.spec, study)
    shipped = shipped_specs("model")
    if ref in shipped:
        return lambda study: _of_model(ref, load_model_spec(shipped[ref]), study.space)
    raise UserError(f"there is no study, no entry of the zoo and no shipped model called {ref!r}")


def _of_study(data: StudyData, taken: Sequence[int], trials: int) -> Found:
    """The trials of the front, then the others, the best of the first objective first; without those that are taken."""
    front = {trial.number for trial in data.front}
    objective = data.objectives[0]
    sign = -1.0 if objective.direction == "maximize" else 1.0
    left = [trial for trial in data.completed if trial.number not in taken]
    ordered = sorted(left, key=lambda t: (t.number not in front, sign * t.values[objective.name], t.number))
    for trial in ordered[: max(1, trials // 2)]:
        yield f"{data.name}, trial {trial.number}", trial.params


def _of_entry(ref: str, provenance: Mapping[str, Any], spec: ModelSpec, study: Study) -> Found:
    params = provenance.get("params")
    if isinstance(params, dict):
        try:
            study.space.encode(params)
        except UserError:
            pass  # the search that it came from had other variables
        else:
            yield ref, params
            return
    yield from _of_model(ref, spec, study.space)


def _of_model(ref: str, spec: ModelSpec, space: Space) -> Found:
    """The first assignment that makes this architecture, however it is trained."""
    everything = space.variables.enumerate(MOST_ASSIGNMENTS)
    if everything is None:
        raise UserError(f"more than {MOST_ASSIGNMENTS:,} assignments to look for its architecture in")
    for values in everything:
        candidate = space.assign(values).candidate
        if candidate is not None and candidate.model.hash == spec.hash:
            yield ref, values
            return
    raise UserError("no assignment of these variables makes its architecture")


def _fitting(space: Space, found: Found) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """What can be proposed, each once, as Optuna's parameters; and why the rest cannot."""
    fitting: list[tuple[str, dict[str, Any]]] = []
    wrong: list[str] = []
    try:
        for origin, values in found:
            try:
                params = space.encode(values)
            except UserError as error:
                wrong.append(f"{origin} ({error})")
                continue
            if all(params != other for _, other in fitting):
                fitting.append((origin, params))
    except UserError as error:
        wrong.append(str(error))
    return fitting, wrong
