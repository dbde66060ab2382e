"""How time and memory grow with length: the slope of a straight line through (log N, log value), least squares.

A slope of 1 is linear, 2 is quadratic. At short lengths fixed costs rule, and the slope is smaller than at long ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.attention import MATMUL

FEWEST = 3


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope through points (N, value), all of them positive."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def growth(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each series and side with at least three lengths: unit, lengths and exponent of a run's time or memory.

    Decoding counts per token, whatever the number of tokens in a run.
    """
    points: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for case in cases:
        if case["status"] != "ok":
            continue
        per = case["tokens"] if case["family"] == "decode" else 1
        for side, found in case["sides"].items():
            if side != MATMUL:
                points.setdefault((case["series"], case["unit"], side), []).append((case["at"], found["median"] / per))
    rows = []
    for (series, unit, side), found in points.items():
        if len({n for n, _ in found}) >= FEWEST:
            lengths = sorted(n for n, _ in found)
            slope = exponent(found)
            rows.append({"series": series, "unit": unit, "side": side, "lengths": lengths, "exponent": round(slope, 3)})
    return rows
