"""Interleaved repeats: A, B, A, B, ... so that a noisy machine slows all sides alike; medians and quartiles.

The first run of each side is thrown away (caches, compilation, first touch of memory). A sample of a side that takes
milliseconds is the mean of as many runs as fill STEADY seconds: a single run would mostly measure what the side before
it left in the caches. Rounds end after `repeats`, or when the budget is spent, but not before FEWEST. A side whose
first run takes several budgets is left out, or the case would never end.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.case import Run, Unit, reason

FEWEST = 3
STEADY = 0.2  # seconds of a sample, at least
PATIENCE = 3  # budgets that one run of a side may take


@dataclass(frozen=True)
class Samples:
    """The numbers of one side, in the order of the rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The middle half of the values; of one value, itself."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def seconds(run: Run, times: int = 1) -> float:
    """Of one run, the mean of so many."""
    began = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - began) / times


def stated(run: Run) -> float:
    """What the side itself says: bytes of memory, say."""
    value = run()
    assert isinstance(value, int | float)
    return float(value)


def interleaved(
    sides: dict[str, Run], repeats: int, budget: float, unit: Unit = "seconds", steady: float = STEADY
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The samples of each side, and the sides that were left out, with reasons. What the first side raises is
    raised."""
    left: dict[str, str] = {}
    if unit == "bytes":
        found = {name: _tried(stated, run, name, sides, left) for name, run in sides.items()}
        return {name: Samples((value,)) for name, value in found.items() if value is not None}, left
    first = {name: _tried(seconds, run, name, sides, left) for name, run in sides.items()}
    kept = {name: took for name, took in first.items() if took is not None and took <= PATIENCE * budget}
    for name, took in first.items():
        if took is not None and took > PATIENCE * budget:
            left[name] = f"one run took {took:.1f} s, and the budget of this case is {budget:g} s"
    values: dict[str, list[float]] = {name: [] for name in kept}
    # A first run may be slow once. For a short side, a second run says how many runs make a sample.
    times = {
        name: 1 if took > 5 * steady else max(1, math.ceil(steady / seconds(sides[name])))
        for name, took in kept.items()
    }
    whole = sum(max(each, steady) for each in kept.values())
    rounds = max(min(FEWEST, repeats), min(repeats, int(budget / max(whole, 1e-9))))
    gc.collect()
    for _ in range(rounds):
        for name in kept:
            values[name].append(seconds(sides[name], times[name]))
    return {name: Samples(tuple(each)) for name, each in values.items()}, left


def _tried(
    sample: Callable[[Run], float], run: Run, name: str, sides: dict[str, Run], left: dict[str, str]
) -> float | None:
    """A first sample; None where a peer fails, with its reason in `left`."""
    try:
        return sample(run)
    except Exception as error:
        if name == next(iter(sides)):
            raise
        left[name] = reason(error)
        return None


def ratio(over: Samples, under: Samples) -> tuple[float, float, float]:
    """Median and quartiles of the ratios of each round: what slows a round slows both sides of it."""
    pairs = [a / b for a, b in zip(over.values, under.values, strict=True)]
    return (statistics.median(pairs), *quartiles(pairs))
