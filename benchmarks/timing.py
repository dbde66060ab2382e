"""Interleaved timing: A, B, A, B, ... so that a noisy machine slows both sides alike; medians and their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds: the median of the repeats, and the spread between their quartiles."""

    median: float
    spread: float


def interleaved(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Run every side once to warm up, then all of them `repeats` times in turn."""
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: _summary(values) for name, values in seconds.items()}


def _summary(values: list[float]) -> Timing:
    quartiles = statistics.quantiles(values, n=4)
    return Timing(statistics.median(values), quartiles[2] - quartiles[0])
