"""How much of a search is left, in tokens: for the time that a live table shows."""

from __future__ import annotations

from collections.abc import Callable

from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.search.trial_trainings import tokens_of_trial


def tokens_left(data: StudyData, so_far: Callable[[TrialRecord], int]) -> float:
    """What is left to train. A trial to come costs what those that ended, or wait at a rung, cost on average: with
    early stopping that is a small part of a whole one. so_far: how far a trial is that runs."""
    whole = float(tokens_of_trial(data.spec, data.train))
    known = [trial.tokens for trial in data.trials if trial.trained or trial.state == "paused"]
    running = [trial for trial in data.trials if trial.state == "running"]
    each = sum(known) / len(known) if known else whole
    left = max(data.spec.budget.trials - len(known) - len(running), 0) * each
    left += sum(max(each - so_far(trial), 0.0) for trial in running)
    if data.baseline is not None and not data.baseline.trained:
        left += max(whole - so_far(data.baseline), 0.0)
    return left
