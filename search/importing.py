"""Trials of another study, taken as they are: values, rungs and run folder, without training.

Only a trial that would come out the same here is taken: the same architecture, training, seed and text, measured at the
same lengths on as much text, judged at the same rungs.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from miniwin.files.writing import said_if_unwritable
from miniwin.runs import LOCK, read_run
from miniwin.search.entries import OUTCOME, outcome_in
from miniwin.search.history import RUNG
from miniwin.search.outcome import ORIGIN, Outcome
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.search.trial_trainings import run_folders
from miniwin.specs import UserError

# Fields of a search spec that decide what the values of a trial are, or when they are known.
_DECISIVE = (
    "objectives",
    "report_lengths",
    "eval_tokens",
    "rung_eval_tokens",
    "rungs",
    "pruner",
    "seed",
    "seeds",
    "learning_rate",
)


def import_trials(study: Study, source: StudyData, fingerprint: str) -> list[int]:
    """Take every completed trial of a study that would come out the same in this one. Returns their numbers there.

    fingerprint: of the text that this study trains on. The study's lock is held. After a kill the same call goes on.
    """
    if any(getattr(study.spec, field) != getattr(source.spec, field) for field in _DECISIVE):
        return []
    here = {trial.user_attrs.get("hash") for trial in study.optuna.get_trials(deepcopy=False)}
    attributes = {told.number: told.user_attrs for told in Study(source.folder, reading=True).known().trials}
    taken = []
    for trial in source.completed:
        if trial.hash in here:
            taken.append(trial.number)
        elif _take(study, source, trial, fingerprint, attributes.get(trial.number, {})):
            taken.append(trial.number)
            here.add(trial.hash)
    return taken


def _take(study: Study, source: StudyData, trial: TrialRecord, fingerprint: str, attributes: dict[str, Any]) -> bool:
    from optuna.trial import FixedTrial, TrialState, create_trial

    if trial.run_folder is None or trial.problem is not None:
        return False
    try:
        params = study.space.encode(trial.params)
        text = read_run(trial.run_folder)["data"]["fingerprint"]
        outcome = outcome_in(attributes) or Outcome.read(trial.run_folder.parent)
    except (UserError, KeyError, TypeError):
        return False
    assignment = study.space.assign(trial.params)
    candidate = assignment.candidate
    if outcome is None or candidate is None or candidate.hash != trial.hash or text != fingerprint:
        return False
    number = len(study.optuna.get_trials(deepcopy=False))
    origin = f"{source.name}, trial {trial.number}"
    folder = study.trial_folder(candidate.hash)
    with said_if_unwritable(folder):
        for run in run_folders(trial.run_folder.parent):
            to = folder / run.relative_to(trial.run_folder.parent)
            shutil.copytree(run, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LOCK))
    specs = candidate.specs
    if outcome.model:  # a study in a storage keeps outcomes without them
        specs = {"model": outcome.model, "train": outcome.train}
    outcome = replace(outcome, number=number, constraints=assignment.constraints, origin=origin, **specs)
    fixed = FixedTrial(params)
    study.space.suggest(fixed)
    kept = {name: value for name, value in attributes.items() if name.startswith(RUNG)}
    said: dict[str, Any] = {
        "state": "complete",
        "hash": candidate.hash,
        "layout": candidate.model.layout,
        ORIGIN: origin,
    }
    if study.stored:
        said[OUTCOME] = outcome.to_attribute()
    else:
        outcome.write(folder)
    study.optuna.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            params=params,
            distributions=fixed.distributions,
            values=[outcome.values[objective.name] for objective in study.spec.parsed_objectives],
            user_attrs={**kept, **said},
            constraints=assignment.constraints,
        )
    )
    return True
