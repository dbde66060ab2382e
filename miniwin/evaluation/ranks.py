"""Whether two measures put things in the same order: Spearman's correlation of ranks, 1 for the same order.

Its interval is that of Bonett and Wright 2000 (Psychometrika 65, 23). Shapes: P things.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from miniwin.evaluation.intervals import Interval, Z

FEWEST = 5  # things, below which a correlation has no interval


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """The rank of each value, from 1; equal values share the mean of theirs. values: (P,)."""
    _, where, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = last - (counts - 1) / 2
    return mean[where]


def rank_correlation(x: ArrayLike, y: ArrayLike) -> Interval | None:
    """The correlation of the ranks of x and y, (P,) each. None where one of them is all alike, or there are fewer than
    two."""
    points = len(np.asarray(x))
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    value = float(np.corrcoef(ranks(x), ranks(y))[0, 1])
    if points < FEWEST or abs(value) > 1 - 1e-12:
        return Interval(value, -1.0, 1.0, points)
    half = Z * math.sqrt((1 + value * value / 2) / (points - 3))
    return Interval(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half), points)
