"""How an outcome is told to Optuna."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from miniwin.search.history import PAUSED
from miniwin.search.outcome import FINAL, Outcome
from miniwin.search.study import Study

if TYPE_CHECKING:
    from optuna.trial import Trial


def has_ended(study: Study, outcome: Outcome) -> bool:
    """Whether an outcome says how its trial ended, with a value for every objective if the trial is complete."""
    measured = all(objective.name in outcome.values for objective in study.spec.parsed_objectives)
    return outcome.state in FINAL and (measured or outcome.state != "complete")


def tell_outcome(study: Study, trial: Trial, outcome: Outcome) -> None:
    if outcome.state == "paused":
        trial.set_user_attr(PAUSED, outcome.rung(study.rungs))
        return
    complete = outcome.state == "complete"
    values = [outcome.values[objective.name] for objective in study.spec.parsed_objectives] if complete else None
    tell(study, trial, outcome.state, outcome.reason, values)


def tell(study: Study, trial: Trial, state: str, reason: str | None, values: list[float] | None = None) -> None:
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    trial.set_user_attr("state", state)
    if reason:
        trial.set_user_attr("reason", reason)
    # To Optuna an infeasible trial or a duplicate is pruned, without a value: neither good nor bad.
    told = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(state, TrialState.PRUNED)
    if state == "pruned":  # its value is the last that it reported: this is what the study's own method looks up
        study.optuna.tell(trial.number, values, told, skip_if_finished=True)
        return
    with suppress(UpdateFinishedTrialError):  # a worker was killed right after this line
        study.storage.set_trial_state_values(trial._trial_id, told, values)
