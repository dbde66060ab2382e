"""95 % intervals of a difference that two kinds of chance are in: the seeds of the trainings, and the text of the test.

Two variants are trained with the same S seeds, and all trainings are measured on the same D draws: documents, pieces of
text, or examples. So draws are shared between seeds, and seeds between draws: the two are crossed. With the differences
y (S, D), the units x (D,), such as bytes, and the value = sum(y) / (S sum(x)), the linearised rests

    z[s, d] = D (y[s, d] - value x[d]) / sum(x)

have these mean squares, each divided by what it is a mean of:

    V_seed  = sum_s mean_d(z)^2 / (S (S - 1))           seeds, and what is peculiar to a seed on a draw
    V_draw  = sum_d mean_s(z)^2 / (D (D - 1))           draws, and again what is peculiar to a seed on a draw
    V_cell  = sum (z - mean_d - mean_s)^2 / (S D (S - 1) (D - 1))       the latter alone, which both of them hold

    V = max(V_seed + V_draw - V_cell, V_seed, V_draw)           value +- t(f) sqrt(V)
    f = V^2 / (V_seed^2 / (S - 1) + V_draw^2 / (D - 1))         Satterthwaite's degrees of freedom

This is the variance for two crossed ways of clustering (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29, 238),
with the degrees of freedom of a sum of mean squares (Satterthwaite 1946, Biometrics Bulletin 2, 110). An interval over
seeds alone would say nothing about other text; one over documents alone would say nothing about other trainings. With
3 seeds of which each says something else, f is about 2, and t is 4.3: the interval is wide, and should be.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from miniwin.evaluation.intervals import FEWEST, Array, Interval, t_quantile


def loss_difference(nats: ArrayLike, other: ArrayLike, units: ArrayLike) -> Interval:
    """Of the loss of the first variant minus that of the other. nats, other: (S, D); units: (D,), bytes or answers.

    n is the number of seeds. With one seed, or fewer than 4 draws, nothing is known: low = -inf, high = inf. The same
    where all differences are equal, as those of two copies of one model are. With 2 seeds the intervals over seeds and
    over draws are added as squares (Zou and Donner 2008, Stat. Med. 27, 1693), which is never too narrow.
    """
    y, x = np.asarray(nats, np.float64) - np.asarray(other, np.float64), np.asarray(units, np.float64)
    return _crossed(y, x)


def share_difference(right: ArrayLike, other: ArrayLike, answers: ArrayLike) -> Interval:
    """Of the share of right answers of the first variant minus that of the other. right, other: (S, E); answers: (E,).

    As in intervals.share_difference, two examples are added (Bonett and Price 2012, J. Educ. Behav. Stat. 37, 479): one
    that only the first variant answers right, and one that only the other does. So an interval is never empty, also
    where no answer differs. It holds the value, and ends at -1 and 1.
    """
    y, x = np.asarray(right, np.float64) - np.asarray(other, np.float64), np.asarray(answers, np.float64)
    seeds = len(y)
    if seeds < 2:
        return Interval(float(y.sum() / (seeds * x.sum())), -1.0, 1.0, seeds)
    value, full = float(y.sum() / (seeds * x.sum())), float(x.mean())
    size = math.sqrt((float((y * y).sum()) / seeds + full**2) / (float(np.count_nonzero(y)) / seeds + 1))
    size /= math.sqrt(seeds)  # two examples in all, not two for each seed
    more = np.tile([size, -size], (seeds, 1))
    found = _crossed(np.hstack([y, more]), np.append(x, (size, size)))
    return Interval(value, max(-1.0, min(value, found.low)), min(1.0, max(value, found.high)), seeds)


def _crossed(y: Array, x: Array) -> Interval:
    seeds, draws = y.shape
    total = float(x.sum())
    value = float(y.sum()) / (seeds * total)
    unknown = Interval(value, -math.inf, math.inf, seeds)
    if seeds < 2 or draws < FEWEST or not np.isfinite(y).all():
        return unknown
    z = draws * (y - value * x) / total
    of_seed, of_draw = z.mean(1), z.mean(0)  # (S,), (D,)
    rest = z - of_seed[:, None] - of_draw
    seed = float(of_seed @ of_seed) / (seeds * (seeds - 1))
    draw = float(of_draw @ of_draw) / (draws * (draws - 1))
    cell = float((rest * rest).sum()) / (seeds * draws * (seeds - 1) * (draws - 1))
    variance = max(seed + draw - cell, seed, draw)
    if not variance > (1e-12 * value) ** 2:
        return unknown
    if seeds == 2:
        half = math.hypot(t_quantile(1) * math.sqrt(seed), t_quantile(draws - 1) * math.sqrt(draw))
    else:
        freedom = variance**2 / (seed**2 / (seeds - 1) + draw**2 / (draws - 1))
        half = t_quantile(max(freedom, 1.0)) * math.sqrt(variance)
    return Interval(value, value - half, value + half, seeds)
