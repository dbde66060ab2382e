"""Which trials a page draws and lists. A page of thousands is slow to write, to load and to read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from miniwin.search.objectives import chief
from miniwin.search.report.measures import known
from miniwin.search.study_data import StudyData, TrialRecord

MOST = 1000  # trials


def shortlist(study: StudyData) -> StudyData:
    """The study with its front, the best other trials in the chief objective, and of the rest every so many.

    A study of at most `MOST` trials stays whole. The front and the winner are those of the whole study.
    """
    if len(study.trials) <= MOST:
        return study
    front = {trial.number for trial in study.front}
    others = sorted((trial for trial in study.trials if trial.number not in front), key=_cost(study))
    left = max(MOST - len(front), 0)
    best, rest = others[: left // 2], sorted(others[left // 2 :], key=lambda trial: trial.number)
    places = left - len(best)
    spread = [rest[place * len(rest) // places] for place in range(places)]
    chosen = front | {trial.number for trial in [*best, *spread]}
    return replace(study, trials=[trial for trial in study.trials if trial.number in chosen])


def note(study: StudyData) -> str:
    """What is said above the table where not all trials are listed, else nothing."""
    if len(study.trials) <= MOST:
        return ""
    return (
        f"The charts and the table show {MOST:,} of {len(study.trials):,} trials: the front, the best others, and an "
        "even selection of the rest. miniwin search export writes all of them."
    )


def _cost(study: StudyData) -> Callable[[TrialRecord], tuple[float, int]]:
    """The chief objective of a trial, with its sign turned so that less is better; what is not known comes last."""
    objective = chief(study.objectives)
    sign = 1.0 if objective.direction == "minimize" else -1.0

    def cost(trial: TrialRecord) -> tuple[float, int]:
        value = sign * known(trial.values.get(objective.name))
        return (value if math.isfinite(value) else math.inf), trial.number

    return cost
