"""What is in a study folder, as plain data, for the report, `status` and `promote`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from miniwin.search.candidate import Candidate, at_rate
from miniwin.search.confirm.plan import find_confirmation
from miniwin.search.entries import OUTCOME
from miniwin.search.history import continued, is_paused
from miniwin.search.journal import Told
from miniwin.search.known_rates import known_rates
from miniwin.search.ladder.standing import find_ladder
from miniwin.search.leases import live
from miniwin.search.outcome import FILE, ORIGIN, TRAINED, Outcome, Specs
from miniwin.search.study import EXHAUSTED, Study, find_study
from miniwin.search.study_data import SHARED, StudyData, TrialRecord
from miniwin.specs import UserError, parse_spec


def read_study(ref: str | Path) -> StudyData:
    """What is in a study. ref: its folder or its name."""
    return collect(Study(find_study(ref), reading=True))


def collect(study: Study) -> StudyData:
    """What is in a study that is open. Nothing is written, so the study may be running.

    A trial whose files are gone or damaged has what the journal says of it, and a problem.
    """
    trials = []
    known = study.known()
    further = continued(known.trials)
    for trial in known.trials:
        if (new := further.get(trial.number)) is not None:
            reason = f"goes on as trial {new}"
            values = study.space.decode(trial.params)
            trials.append(TrialRecord(trial.number, "duplicate", values, reason=reason, duplicate_of=new))
            continue
        record = study.ended.get(trial.number) or _record(study, trial)
        if record is not None:
            trials.append(record)
            if trial.ended and record.state != "failed":  # a failed one may be tried again
                study.ended[trial.number] = record
    exhausted = bool(known.user_attrs.get(EXHAUSTED))
    baseline = None if study.baseline is None else _baseline(study, known.user_attrs)
    size = study.space.variables.size if exhausted else math.inf
    data = StudyData(
        study.folder,
        study.spec,
        study.base,
        study.space.train,
        trials,
        baseline,
        exhausted,
        size,
        ladder=find_ladder(study, known.user_attrs),
    )
    asked = study.spec.confirm
    if asked is None:
        return data
    chosen = [(trial.number, trial.params) for trial in data.ranked[: asked.top]] if data.searched else None
    confirmation = find_confirmation(study, chosen, len(data.trained), known_rates(study, data), known.user_attrs)
    return replace(data, confirmation=confirmation)


def with_specs(data: StudyData) -> StudyData:
    """The study with all specs read. A trial whose specs cannot be read has none, and a problem."""
    return replace(
        data, trials=list(map(_read, data.trials)), baseline=None if data.baseline is None else _read(data.baseline)
    )


def _read(trial: TrialRecord) -> TrialRecord:
    try:
        _ = trial.spec, trial.train
    except UserError as error:
        return replace(trial, spec=None, train=None, problem=str(error))
    return trial


def _record(study: Study, trial: Told) -> TrialRecord | None:
    state, reason = trial.user_attrs.get("state", "running"), trial.user_attrs.get("reason")
    if trial.ended and state in ("infeasible", "duplicate"):
        same = trial.user_attrs.get("duplicate_of")
        values = study.space.decode(trial.params)
        return TrialRecord(trial.number, state, values, constraints=trial.constraints, reason=reason, duplicate_of=same)
    hash = trial.user_attrs.get("hash")
    if hash is None:  # waits in the queue, or is being claimed at this moment
        return None
    folder = os.path.join(study.place.folder, "trials", str(hash)[:12])  # thousands of Paths take their time
    found, problem = _outcome(study, trial, folder)
    if found is not None and found[0].number == trial.number:
        # The outcome may be written and Optuna not yet told: then the trial is still running.
        now = "paused" if is_paused(trial.user_attrs) else "running"
        if trial.ended:  # a trial that was paused to the end is pruned, and its outcome does not know
            now = state if found[0].state == "paused" else found[0].state
        alive = now not in TRAINED and live(study.lease_seen(trial)) is not None
        return _from_outcome(trial.number, *found, folder, now, alive and not trial.ended)
    if not trial.ended and problem is None:
        return None
    if found is None:
        problem = problem or f"{_where(study, folder)} is gone"
    elif state in TRAINED:
        problem = f"{_where(study, folder)} is of trial {found[0].number}"
    # The files are lost; or the trial failed, and a later trial has taken its folder over.
    values = dict(zip((o.name for o in study.spec.parsed_objectives), trial.values, strict=False))
    known: dict[str, Any] = {"constraints": trial.constraints, "hash": hash, "reason": reason, "problem": problem}
    known["origin"] = trial.user_attrs.get(ORIGIN)
    params = study.space.decode(trial.params)
    return TrialRecord(trial.number, state, params, values, layout=str(trial.user_attrs.get("layout", "")), **known)


def _outcome(study: Study, trial: Told, folder: str) -> tuple[tuple[Outcome, Specs] | None, str | None]:
    """(the outcome of a trial with its specs, None) or (None, what is wrong with it, if there is something)"""
    try:
        if not study.stored:
            return Outcome.skim(folder), None
        said = trial.user_attrs.get(OUTCOME)
        if said is None:
            return None, None
        outcome = Outcome.of_attribute(said)
        return (outcome, lambda: _specs(study.space.assign(outcome.params).candidate)), None
    except UserError as error:
        return None, str(error)


def _where(study: Study, folder: str) -> str:
    return f"its attribute {OUTCOME!r} in the storage" if study.stored else os.path.join(folder, FILE)


def _specs(candidate: Candidate | None) -> dict[str, Any]:
    """The specs of a trial whose outcome is kept without them."""
    if candidate is None:
        raise UserError("its parameters make no architecture any more: the base specs have changed")
    return candidate.specs


def _baseline(study: Study, seen: Mapping[str, Any]) -> TrialRecord:
    folder, entry, problem, found = study.baseline_folder, study.baseline_entry(seen), None, None
    try:
        if not study.stored:
            found = Outcome.skim(folder)
        elif (outcome := entry.outcome()) is not None:
            found = outcome, lambda: _specs(study.baseline_candidate())
    except UserError as error:
        problem = str(error)
    outcome, specs = found or _not_yet(study)
    alive = outcome.state not in TRAINED and live(entry.lease()) is not None
    record = _from_outcome(-1, outcome, specs, str(folder), outcome.state, alive)
    return record if problem is None else replace(record, problem=problem)


def _not_yet(study: Study) -> tuple[Outcome, Specs]:
    outcome = study.new_baseline()
    return outcome, lambda: {"model": outcome.model, "train": outcome.train}


def _from_outcome(number: int, outcome: Outcome, specs: Specs, folder: str, state: str, alive: bool) -> TrialRecord:
    """state: in place of the outcome's own. folder: of the trial."""
    return TrialRecord(
        number=number,
        state=state,
        spec=partial(_spec, specs, "model"),
        train=partial(_train_of, specs, outcome.learning_rate),
        run_folder=Path(folder) / "run",
        alive=alive,
        **{name: getattr(outcome, name) for name in SHARED},
    )


def _train_of(specs: Specs, rate: float | None) -> Any:
    train = _spec(specs, "train")
    return train if rate is None else at_rate(train, rate)


def _spec(specs: Specs, kind: str) -> Any:
    data = specs()[kind]
    # Most trials of a study are trained alike.
    return parse_spec(data, kind) if kind == "model" else _train_spec(json.dumps(data))


@lru_cache(maxsize=64)
def _train_spec(text: str) -> Any:
    return parse_spec(json.loads(text), "train")
