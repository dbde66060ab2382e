"""How much the choice of a variable mattered: PED-ANOVA (Watanabe et al., arXiv 2304.10255), for many samples at once.

It takes one variable at a time, and compares the distribution of the best trials over its values, p, with that of all
trials, q. The further apart they are, the more the choice mattered:

    importance = sum over values  q * (p / q - 1)^2            (Pearson divergence)

p and q are Parzen estimates on a grid of at most 50 values, with Scott's bandwidth. Optuna has the same, and a test
compares the two. It takes one sample at a time, and an interval needs hundreds of them. A sample says of each trial how
often it was drawn.

Shapes: n trials, B samples, K values of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = 50  # values of a grid, at most
LEAST_SIGMA = 0.5 / 1.64  # in steps of the grid
TINY = 1e-12


@dataclass(frozen=True)
class Column:
    """One variable, or one place of a placement. values: what each trial has, (n,), as a place on a grid of `size`.
    ordered: whether neighbours on the grid are alike."""

    values: NDArray[np.int64]
    size: int
    ordered: bool


def numeric(values: Any, low: float, high: float, step: float | None, log: bool) -> Column:
    """A column of numbers. step: None for a real number."""
    size = STEPS
    if log and step is not None:
        size = min(math.ceil(math.log2(high - low + 1)) + 1, STEPS)
    elif step is not None:
        size = min(round((high - low) / step) + 1, STEPS)
    found = np.asarray(values, dtype=np.float64)
    if log:
        found, low, high = np.log(found), math.log(low), math.log(high)
    width = (high - low) / max(size - 1, 1) or 1.0
    places = np.ceil((found - low) / width - 0.5).astype(np.int64)
    return Column(np.clip(places, 0, size - 1), size, True)


def divergences(columns: Sequence[Column], every: Array, good: Array) -> Array:
    """The importance of each column in each sample, (columns, B).

    every: how often each trial was drawn, (B, n), or (1, n) where it is the same in all samples. good: the same of the
    trials that count as good, (B, n).
    """
    found = np.zeros((len(columns), len(good)))
    for place, column in enumerate(columns):
        if column.size > 1:
            of_all, of_good = (_densities(column, _counts(column, weights)) + TINY for weights in (every, good))
            found[place] = (of_all * (of_good / of_all - 1) ** 2).sum(axis=1)
    return found


def best(costs: Array, share: float, every: Array) -> Array:
    """`every`, without the trials that are worse than the best `share` of their sample. costs: (n,), less is better."""
    order = np.argsort(costs, kind="stable")
    drawn = np.cumsum(every[:, order], axis=1)
    cutoff = costs[order][(drawn < np.ceil(share * drawn[:, -1:])).sum(axis=1)]
    return every * (costs <= cutoff[:, None])


def _counts(column: Column, weights: Array) -> Array:
    """How often each value of the grid was drawn, (B, K)."""
    shown = np.zeros((len(column.values), column.size))
    shown[np.arange(len(column.values)), column.values] = 1.0
    return weights @ shown


def _densities(column: Column, counts: Array) -> Array:
    """Parzen estimates, (B, K): a kernel at each value that was drawn, and one with the weight of a trial for all."""
    drawn, size = counts.sum(axis=1, keepdims=True), column.size
    if not column.ordered:
        kernels = (counts > 0).sum(axis=1, keepdims=True) + 1
        return ((counts + drawn / kernels) / (1 + size / kernels) + 1 / size) / (drawn + 1)
    middle = (size - 1) / 2
    wide = _normal(np.arange(size + 1) - 0.5 - middle, float(size))
    found = np.empty_like(counts)
    sigmas, which = np.unique(_bandwidths(counts), return_inverse=True)
    for number, sigma in enumerate(sigmas):
        rows = which == number
        found[rows] = counts[rows] @ _kernels(size, float(sigma)) + np.diff(wide) / (wide[-1] - wide[0])
    return found / (drawn + 1)


def _bandwidths(counts: Array) -> Array:
    """Scott's rule for each sample, (B,), in steps of the grid."""
    drawn, places = counts.sum(axis=1), np.arange(counts.shape[1])
    means = counts @ places / drawn
    spread = (counts * (places - means[:, None]) ** 2).sum(axis=1) / np.maximum(1, drawn - 1)
    below = np.cumsum(counts, axis=1)
    first = (below < np.maximum(drawn // 4, 1)[:, None]).sum(axis=1)
    last = (below <= (drawn * 3 // 4)[:, None]).sum(axis=1)
    narrow = np.minimum((last - first) / 1.34, np.sqrt(spread))
    return np.maximum(1.059 * narrow * drawn**-0.2, LEAST_SIGMA)


def _kernels(size: int, sigma: float) -> Array:
    """Normal distributions around each value of the grid, (K, K), each within the ends of the grid."""
    offsets = _normal(np.arange(-size, size + 1) + 0.5, sigma)  # from the value to the edges of another
    edges = np.arange(size)[None, :] - np.arange(size)[:, None] + size - 1
    low, high = offsets[edges], offsets[edges + 1]
    return (high - low) / (high[:, -1:] - low[:, :1])


def _normal(values: NDArray[np.floating[Any]], sigma: float) -> Array:
    """The distribution function of a normal distribution around 0."""
    return np.array([0.5 * math.erfc(-value / sigma / math.sqrt(2)) for value in values])
