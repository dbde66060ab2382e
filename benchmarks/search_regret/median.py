"""Optuna's median pruner, asked about a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from optuna.distributions import FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from miniwin.search.history import Tried
from miniwin.search.samplers.past import Past
from miniwin.specs.pruning import MedianPruner as Spec

NOTHING: dict[str, Any] = {
    "params": {"x": 0.0},
    "distributions": {"x": FloatDistribution(0, 1)},
}  # which the pruner does not look at


class Median:
    """Made for one history, which grows."""

    def __init__(self, directions: tuple[Literal["minimize", "maximize"], ...]) -> None:
        self._directions = directions
        self._pruner = MedianPruner(n_startup_trials=Spec().startup, n_warmup_steps=0)
        self._complete: dict[int, FrozenTrial] = {}

    def stops(self, history: Sequence[Tried], number: int) -> bool:
        """Whether a trial ends at the rung that it has reached."""
        for tried in history:
            if tried.state == "complete" and tried.number not in self._complete:
                self._complete[tried.number] = _frozen(tried)
        past = Past(lambda: list(self._complete.values()), self._directions, None, 0, frozenset())  # type: ignore[arg-type]
        return self._pruner.prune(past.study(RandomSampler()), _frozen(history[number]))


def _frozen(tried: Tried) -> FrozenTrial:
    before = tried.rungs[:-1] if tried.state == "complete" else tried.rungs
    steps = {rung + 1: row[0] for rung, row in enumerate(before)}
    if tried.state == "complete":
        return create_trial(value=tried.rungs[-1][0], intermediate_values=steps, **NOTHING)
    return create_trial(state=TrialState.RUNNING, intermediate_values=steps, **NOTHING)
