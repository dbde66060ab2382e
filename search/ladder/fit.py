"""Loss against compute: straight lines in log-log, one for each variant, all of the same slope.

    log(L - E) = a_v - alpha log C          L: nats per byte, C: FLOPs of the training, v: the variant

E is what no compute takes away. Three sizes cannot tell E from alpha, so E is not fitted: everything is worked out for
no E, for a quarter and for half of the lowest loss that was measured. A value is that of a quarter, and an interval
holds those of all three. How far apart two lines are, counted in compute, hardly depends on E; where a line goes beyond
the sizes that were trained does.

    speed-up of v over b = exp((a_b - a_v) / alpha)     how many times as much compute b needs for the same loss

Intervals are 95 %, by the delta method: a value is linear in the mean losses (V variants, K sizes) as far as they may
be off, with the gradient g, and V = g' (Q_seed + Q_text - Q_cell) g as in miniwin/evaluation/crossed.py. Sizes have
seeds of their own, variants share them. The relative spread between seeds, and how variants move together, are taken to
be the same at each size, and pooled: so a size with one seed has an interval, too. The limits of a ratio are those
values r for which numerator - r * denominator may be 0 (Fieller 1954, J. R. Stat. Soc. B 16, 175). They are not finite
where the slope itself may be 0.

Shapes: V variants, K sizes, S seeds of one size, D documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miniwin.evaluation.intervals import FEWEST, Interval, t_quantile

Array = NDArray[np.float64]
Function = Callable[[Array], float]  # of the mean losses (V, K)

FLOORS = (0.0, 0.25, 0.5)  # E as a share of the lowest loss
MIDDLE = 0.25
FARTHEST = math.log(1e4)  # the largest speed-up that is told from no limit


@dataclass(frozen=True)
class Scored:
    """Losses of V variants at K sizes. compute: (V, K). runs: of each size, (V, S). nats: of each size, (V, S, D), and
    units: (D,), bytes; None where single documents are not known, or are not what varies."""

    compute: Array
    runs: Sequence[Array]
    nats: Sequence[Array] | None = None
    units: Array | None = None

    @property
    def losses(self) -> Array:
        return np.stack([run.mean(1) for run in self.runs], axis=1)  # (V, K)

    @property
    def lowest(self) -> float:
        return float(self.losses.min())


class Spread:
    """How far a value may be off that is linear in the mean losses."""

    def __init__(self, scored: Scored) -> None:
        losses = scored.losses
        variants, sizes = losses.shape
        self.seed_freedom = sum(run.shape[1] - 1 for run in scored.runs)
        rests = [run / run.mean(1, keepdims=True) - 1 for run in scored.runs]
        together = sum((rest @ rest.T for rest in rests), np.zeros((variants, variants)))
        self.of_seed: Array = together / max(self.seed_freedom, 1)  # (V, V), relative
        self.known = self.seed_freedom > 0 and bool((np.diag(self.of_seed) > 1e-20).all())
        self.seed = np.zeros((sizes, variants, sizes, variants))
        self.text, self.cell = np.zeros_like(self.seed), np.zeros_like(self.seed)
        for k, run in enumerate(scored.runs):
            scale = np.outer(losses[:, k], losses[:, k])
            self.seed[k, :, k, :] = self.of_seed * scale / run.shape[1]
        self.text_freedom = 0
        if scored.nats is not None and scored.units is not None:
            self._add_text(scored.nats, scored.units, losses)

    def _add_text(self, nats: Sequence[Array], units: Array, losses: Array) -> None:
        draws = len(units)
        self.text_freedom = draws - 1
        self.known = self.known and draws >= FEWEST
        means = []
        for k, found in enumerate(nats):
            z = draws * (found - losses[:, k, None, None] * units) / units.sum()  # (V, S, D)
            seeds = z.shape[1]
            mean = z.mean(1)  # (V, D)
            means.append(mean)
            if seeds > 1:
                rest = z - mean[:, None, :] - z.mean(2, keepdims=True)
                cells = seeds * draws * (seeds - 1) * (draws - 1)
                self.cell[k, :, k, :] = np.einsum("vsd,wsd->vw", rest, rest) / cells
        every = np.stack(means)  # (K, V, D)
        self.text = np.einsum("kvd,lwd->kvlw", every, every) / (draws * max(draws - 1, 1))

    def parts(self, one: Array, other: Array) -> Array:
        """The products of two gradients (V, K) with the three matrices: seed, text, cell."""
        a, b = one.T.ravel(), other.T.ravel()
        return np.array([a @ q.reshape(len(a), -1) @ b for q in (self.seed, self.text, self.cell)])

    def of(self, parts: Sequence[float] | Array) -> tuple[float, float]:
        """(variance, degrees of freedom) of a value whose gradient has these parts."""
        seed, text, cell = parts
        variance = max(seed + text - cell, seed, text)
        if not variance > 0:
            return 0.0, 1.0
        squares = seed**2 / max(self.seed_freedom, 1) + (text**2 / self.text_freedom if self.text_freedom else 0.0)
        return variance, max(variance**2 / squares, 1.0)

    def half(self, parts: Sequence[float] | Array) -> float:
        """Half the width of the 95 % interval."""
        variance, freedom = self.of(parts)
        return t_quantile(round(freedom, 2)) * math.sqrt(variance) if self.known else math.inf


# -- the lines


def lines(losses: Array, compute: Array, floor: float) -> tuple[Array, float]:
    """(a, alpha): heights (V,) and slope, by least squares."""
    x, u = np.log(compute), np.log(losses - floor)
    along = x - x.mean(1, keepdims=True)
    alpha = -float((along * u).sum() / (along * along).sum())
    return u.mean(1) + alpha * x.mean(1), alpha


def slope(scored: Scored, spread: Spread | None = None, floors: Sequence[float] = FLOORS) -> Interval:
    """alpha, with its interval."""
    spread = spread or Spread(scored)

    def one(floor: float) -> Interval:
        def alpha(losses: Array) -> float:
            return lines(losses, scored.compute, floor)[1]

        return _interval(alpha, scored.losses, spread)

    return _over(floors, scored, one)


def speed_up(
    scored: Scored, first: int, other: int, spread: Spread | None = None, floors: Sequence[float] = FLOORS
) -> Interval:
    """How many times as much compute the other variant needs for the losses of the first, at all sizes together."""
    spread = spread or Spread(scored)

    def one(floor: float) -> Interval:
        def apart(losses: Array) -> float:
            heights, _ = lines(losses, scored.compute, floor)
            return float(heights[other] - heights[first])

        def alpha(losses: Array) -> float:
            return lines(losses, scored.compute, floor)[1]

        return _ratio(apart, alpha, scored.losses, spread).through(_times)

    return _over(floors, scored, one)


def speed_up_at(
    scored: Scored,
    size: int,
    first: int,
    other: int,
    spread: Spread | None = None,
    floors: Sequence[float] = FLOORS,
) -> Interval:
    """The same at one size: from the two losses there, and the slope of all."""
    weights = np.zeros(len(scored.runs))
    weights[size] = 1.0
    return _local(scored, weights, first, other, spread or Spread(scored), floors)


def trend(
    scored: Scored, first: int, other: int, spread: Spread | None = None, floors: Sequence[float] = FLOORS
) -> Interval:
    """The speed-up at the largest size as a multiple of that at the smallest."""
    weights = np.zeros(len(scored.runs))
    weights[0], weights[-1] = -1.0, 1.0
    return _local(scored, weights, first, other, spread or Spread(scored), floors)


def _local(scored: Scored, weights: Array, first: int, other: int, spread: Spread, floors: Sequence[float]) -> Interval:
    """exp of the sum over sizes of log speed-ups times their weights."""
    x = np.log(scored.compute)
    further = float(weights @ (x[other] - x[first]))

    def one(floor: float) -> Interval:
        def alpha(losses: Array) -> float:
            return lines(losses, scored.compute, floor)[1]

        def apart(losses: Array) -> float:
            higher = np.log((losses[other] - floor) / (losses[first] - floor))
            return float(weights @ higher) + alpha(losses) * further

        return _ratio(apart, alpha, scored.losses, spread).through(_times)

    return _over(floors, scored, one)


def difference(scored: Scored, size: int, first: int, other: int, spread: Spread | None = None) -> Interval:
    """Of the first loss minus the other at one size, in nats per byte."""
    spread = spread or Spread(scored)
    g = np.zeros_like(scored.compute)
    g[first, size], g[other, size] = 1.0, -1.0
    losses = scored.losses
    value, half = float(losses[first, size] - losses[other, size]), spread.half(spread.parts(g, g))
    return Interval(value, value - half, value + half, scored.runs[size].shape[1])


def predict(
    scored: Scored,
    compute: Array,
    weights: Sequence[float],
    seeds: int,
    floors: Sequence[float] = FLOORS,
) -> Interval:
    """What will be measured at a larger size, on the same text: the sum of the losses times their weights.

    compute: (V,), there. weights: (V,): of the loss of one variant, or of a difference. seeds: how many will be trained
    there; the interval is of the mean over them. The text is the same, so documents are not part of the chance.
    """
    spread = Spread(Scored(scored.compute, scored.runs))
    at, chosen = np.log(compute), np.asarray(weights, np.float64)

    def one(floor: float) -> Interval:
        def loss(losses: Array) -> Array:
            heights, alpha = lines(losses, scored.compute, floor)
            return floor + np.exp(heights - alpha * at)

        def value(losses: Array) -> float:
            return float(chosen @ loss(losses))

        new = chosen * loss(scored.losses) / math.sqrt(seeds)
        return _interval(value, scored.losses, spread, new)

    return _over(floors, scored, one)


def _times(log: float) -> float:
    return math.inf if log > 700 else math.exp(log)


def _over(floors: Sequence[float], scored: Scored, one: Callable[[float], Interval]) -> Interval:
    """The interval that holds those of all floors."""
    found = {share: one(share * scored.lowest) for share in floors}
    value = found[MIDDLE if MIDDLE in found else floors[0]]
    low, high = min(f.low for f in found.values()), max(f.high for f in found.values())
    return Interval(value.value, low, high, value.n)


def _gradient(function: Function, losses: Array) -> Array:
    found = np.zeros_like(losses)
    for place in np.ndindex(*losses.shape):
        step = 1e-6 * losses[place]
        up, down = losses.copy(), losses.copy()
        up[place] += step
        down[place] -= step
        found[place] = (function(up) - function(down)) / (2 * step)
    return found


def _interval(function: Function, losses: Array, spread: Spread, new: Array | None = None) -> Interval:
    """new: (V,), what another training of each variant adds to the chance: its loss times its weight."""
    value, gradient = function(losses), _gradient(function, losses)
    parts = spread.parts(gradient, gradient)
    parts[0] += 0.0 if new is None else new @ spread.of_seed @ new
    half = spread.half(parts)
    return Interval(value, value - half, value + half, spread.seed_freedom)


def _ratio(top: Function, bottom: Function, losses: Array, spread: Spread) -> Interval:
    """Of top / bottom, by Fieller's argument; no limit where there is none below FARTHEST."""
    n, d = top(losses), bottom(losses)
    gn, gd = _gradient(top, losses), _gradient(bottom, losses)
    nn, nd, dd = ([float(part) for part in spread.parts(*pair)] for pair in ((gn, gn), (gn, gd), (gd, gd)))
    if not spread.known or not d > spread.half(dd):
        return Interval(n / d if d > 0 else math.nan, -math.inf, math.inf, spread.seed_freedom)

    def outside(ratio: float) -> bool:
        parts = [a - 2 * ratio * b + ratio**2 * c for a, b, c in zip(nn, nd, dd, strict=True)]
        return abs(n - ratio * d) > spread.half(parts)

    value = n / d
    return Interval(value, _limit(outside, value, -1.0), _limit(outside, value, 1.0), spread.seed_freedom)


def _limit(outside: Callable[[float], bool], value: float, way: float) -> float:
    near, far = value, value + way * 1e-3
    while not outside(far):
        near, far = far, value + (far - value) * 2
        if abs(far - value) > FARTHEST:
            return way * math.inf
    for _ in range(30):
        middle = (near + far) / 2
        near, far = (near, middle) if outside(middle) else (middle, far)
    return far
