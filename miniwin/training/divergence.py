"""Watches the training loss: smooths it, and says when a run has gone wrong and why.

    smoothed_n = sum_i b^(n-i) loss_i / sum_i b^(n-i),  b = 0.95: about 20 steps, no bias at the start

A run has diverged when its loss or its gradient is not a number, or when the loss stays more than
`loss_spike` nats above the median of the last 100 ordinary losses for `patience` steps in a row. The losses of a
spike do not enter the median, so it stays the median from before the spike.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from miniwin.specs.train import StopSpec

SMOOTHING = 0.95
REMEMBERED = 100


class LossWatch:
    """The loss so far. Its state is in the checkpoint, so that a continued run stops at the same step."""

    def __init__(self, stop: StopSpec) -> None:
        self._stop = stop
        self._sum = self._weight = 0.0
        self._ordinary: list[float] = []
        self._high = 0

    @property
    def smoothed(self) -> float:
        """The smoothed loss; NaN before the first step."""
        return self._sum / self._weight if self._weight else math.nan

    def see(self, step: int, loss: float, gradient_norm: float) -> str | None:
        """Add the loss of a step, in nats, and the norm of its gradient. Returns the reason to stop, or None."""
        usual = median(self._ordinary) if self._ordinary else None
        before = "it was the first step" if usual is None else f"the median before was {usual:.3f}"
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return (
                f"step {step}: loss {loss:g} with a gradient norm of {gradient_norm:g}, {before}; "
                "try a lower optimizer.lr, a longer schedule.warmup or a smaller clip_grad_norm"
            )
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        limit = self._stop.loss_spike
        if limit is not None and usual is not None and loss > usual + limit:
            self._high += 1
            if self._high >= self._stop.patience:
                return (
                    f"step {step}: loss {loss:.3f}, {self._high} steps in a row more than {limit:g} nats too "
                    f"high, {before}; try a lower optimizer.lr or a longer schedule.warmup"
                )
        else:
            self._high = 0
            self._ordinary = [*self._ordinary[-(REMEMBERED - 1) :], loss]
        return None

    def state(self) -> dict[str, Any]:
        return {"sum": self._sum, "weight": self._weight, "ordinary": self._ordinary, "high": self._high}

    def restore(self, state: dict[str, Any]) -> None:
        self._sum, self._weight = state["sum"], state["weight"]
        self._ordinary, self._high = list(state["ordinary"]), state["high"]
