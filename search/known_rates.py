"""The learning rates that the trials of a study have tuned, also where the record of a trial is lost."""

from __future__ import annotations

from pathlib import Path

from miniwin.runs import read_run
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.trial_trainings import MAIN
from miniwin.specs import UserError


def known_rates(study: Study, data: StudyData) -> dict[int | None, float | None]:
    """Of the complete trials, and of the baseline (None). None: neither the record nor the run of a trial says it."""
    if study.spec.learning_rate is None:
        return {}
    found = data.rates
    for trial in data.completed:
        if found[trial.number] is None and trial.hash is not None:
            found[trial.number] = _trained_with(study.trial_folder(trial.hash) / MAIN)
    return found


def _trained_with(run: Path) -> float | None:
    """The rate of a run: nothing is trained there before the sweep has chosen one."""
    try:
        return float(read_run(run)["train"]["optimizer"]["lr"])
    except (UserError, KeyError, TypeError):
        return None
