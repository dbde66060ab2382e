"""How an outcome is told to Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from miniwin.search.at_once import database_below, set_trial_attributes
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


def tell(
    study: Study, trial: Trial, state: str, reason: str | None, values: list[float] | None = None, **more: Any
) -> None:
    """more: other attributes of the trial."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    attributes = {"state": state, **more, **({"reason": reason} if reason else {})}
    # To Optuna an infeasible trial or a duplicate is pruned, without a value: neither good nor bad.
    told = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(state, TrialState.PRUNED)
    if state == "pruned":  # its value is the last that it reported: this is what the study's own method looks up
        set_attributes(trial, attributes)
        study.optuna.tell(trial.number, values, told, skip_if_finished=True)
        return
    with suppress(UpdateFinishedTrialError):  # a worker was killed right after this line
        if database := database_below(trial.storage):
            database.end_trial(trial._trial_id, told, values, attributes)
        else:
            set_attributes(trial, attributes)
            study.storage.set_trial_state_values(trial._trial_id, told, values)


def set_attributes(trial: Trial, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a trial in Optuna: at once, where the storage can."""
    set_trial_attributes(trial.storage, trial._trial_id, attributes)
    trial._cached_frozen_trial.user_attrs.update(attributes)  # as Optuna's own method does
