"""What can be said of a trial after a few steps: that it would take too long. And why one had not enough memory.

A loss that is not a number ends training by itself, at any step (miniwin/training/divergence.py).
"""

from __future__ import annotations

from pathlib import Path

from miniwin.machine.memory import TooLarge, failed_allocation
from miniwin.runs import read_run
from miniwin.specs import TrainSpec

STEPS = (2, 10, 11)  # the record of a run, read at the third, says how long the steps between the first two took


class Probe:
    """Looks at the speed of a run after its first steps. tokens: when to ask; empty if there is no limit."""

    def __init__(self, run: Path, train: TrainSpec, limit: float | None) -> None:
        self._run, self._train = run, train
        self._limit = limit or 0.0
        asked = limit is not None and train.steps > STEPS[-1]
        self.tokens = [step * train.tokens_per_step for step in STEPS] if asked else []
        self._began: float | None = None

    def too_slow(self, tokens: int) -> str | None:
        """Why the trial is given up; None if it is not. Where a worker took the run over in the midst, nobody knows."""
        if tokens == self.tokens[1]:
            self._began = self._step_seconds()
        if tokens != self.tokens[2] or self._began is None:
            return None
        seconds = (self._step_seconds() - self._began) / (STEPS[1] - STEPS[0]) * self._train.steps
        if seconds <= self._limit:
            return None
        return f"too slow: {seconds:,.3g} seconds by the speed of its first steps, of at most {self._limit:,.3g}"

    def _step_seconds(self) -> float:
        """What the steps up to the last checkpoint took. The record is written with each checkpoint."""
        record = read_run(self._run)
        return float(record["tokens"] / max(record["tokens_per_second"], 1e-9))


def want_of_memory(error: Exception) -> str | None:
    """The reason of a trial that had not enough memory, before or during training; None for any other error."""
    if isinstance(error, TooLarge):
        return f"not enough memory: {error}"
    return failed_allocation(error)
