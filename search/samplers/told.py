"""What a sampler is told of each trial: the values of all trials at one rung, so that they can be compared.

That rung is the highest that enough trials have reached, as the model of BOHB is of the largest budget with enough
observations (arXiv:1807.01774). Where our samplers know more than BOHB's does:

    the rung was reached        complete, with the values there, whatever became of the trial later
    stopped below it            pruned; with one objective Optuna's TPE ranks these by the rung they reached, then by
                                their value there
    still on its way            running, so that others keep away from it
    infeasible                  pruned, and by how much it breaks its constraints
    a duplicate, diverged       pruned, without a value
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from miniwin.search.history import Tried
from miniwin.search.samplers.past import Variables

ENOUGH = 10  # trials at a rung, to compare by it
MOST_FREE = 500  # infeasible trials and duplicates that a sampler is told of: the latest
FREE = ("infeasible", "duplicate")


class Teller:
    """Optuna's trials for a history. What was made for one proposal is kept for the next."""

    def __init__(self, space: Variables) -> None:
        self._space = space
        self._objectives = len(space.spec.objectives)
        self._made: dict[int, tuple[tuple[Any, ...], FrozenTrial]] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def __call__(self, history: Sequence[Tried]) -> list[FrozenTrial]:
        level = self.level(history)
        free = sum(tried.state in FREE for tried in history)
        found: list[FrozenTrial] = []
        for tried in history:
            if tried.state in FREE:
                free -= 1
                if free >= MOST_FREE:
                    continue
            key = (level, tried.state, tried.rungs, tried.params)
            before = self._made.get(tried.number)
            if before is None or before[0] != key:
                self._made[tried.number] = before = (key, self._make(tried, level))
            trial = before[1]
            trial.number = trial._trial_id = len(found)
            found.append(trial)
        return found

    def level(self, history: Sequence[Tried]) -> int:
        """The rung whose values are told."""
        reached = [0] * max((len(tried.rungs) for tried in history), default=0)
        stopped = 0
        for tried in history:
            known = [_known(row) for row in tried.rungs]
            stopped += any(known) and tried.state != "running"
            for rung, at in enumerate(known):
                reached[rung] += at
        enough = min(ENOUGH, stopped)
        return max((rung for rung, trials in enumerate(reached) if trials >= enough), default=0)

    def _make(self, tried: Tried, level: int) -> FrozenTrial:
        values = tried.rungs[level] if len(tried.rungs) > level else ()
        try:
            known: dict[str, Any] = {"params": tried.params, "distributions": self._asked(tried.params)}
            if tried.state == "failed":
                state = TrialState.FAIL
            elif values and _known(values):
                return create_trial(values=list(values), **known)
            elif tried.state == "running":
                state = TrialState.RUNNING
            else:
                state = TrialState.PRUNED
                if self._objectives == 1:
                    steps = {rung: row[0] for rung, row in enumerate(tried.rungs) if _known(row)}
                    known["intermediate_values"] = steps
                if tried.state == "infeasible":
                    known["constraints"] = {
                        name: number for name, number in tried.constraints.items() if not math.isnan(number)
                    }
            return create_trial(state=state, **known)
        except (KeyError, ValueError):  # of other variables than the space has now, or not asked to the end yet
            return create_trial(state=TrialState.FAIL)

    def _asked(self, params: dict[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of a trial's parameters. ValueError: the space would never ask for these."""
        fixed = FixedTrial(params)
        self._space.suggest(fixed)
        asked = {}
        for name, distribution in fixed.distributions.items():
            same = self._distributions.setdefault(name, distribution)
            asked[name] = same if same == distribution else distribution  # one object: see `Past.common`
        if asked.keys() != params.keys():
            raise ValueError("parameters that the space does not ask for")
        return asked


def _known(values: Sequence[float]) -> bool:
    return not any(map(math.isnan, values))
