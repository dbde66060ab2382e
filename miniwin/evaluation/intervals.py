"""95 % intervals: of shares, of losses, of differences between two models, and over seeds.

What varies from draw to draw is the example, the document or the seed. Several answers of one example, or several
windows of one document, are one draw. An interval may be wide where draws are few: then it says what is known.
Nothing known is low = -inf and high = inf (0 and 1 for a share), never a narrow interval.

Sources, named at each function: Wilson 1927 (JASA 22, 209); Kish 1965 (Survey Sampling, 8.2); Korn and Graubard 1998
(Survey Methodology 24, 193); Bonett and Price 2012 (J. Educ. Behav. Stat. 37, 479); Efron 1981 (Can. J. Stat. 9, 139);
Cochran 1977 (Sampling Techniques, chapter 6); Newcombe 1998 (Stat. Med. 17, 873); Zou and Donner 2008 (Stat. Med. 27,
1693); Welch 1947 (Biometrika 34, 28); Wilks 1941 (Ann. Math. Stat. 12, 91).

Shapes: E examples, D documents, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)  # 1.96
RESAMPLES = 1999  # (RESAMPLES + 1) * 2.5 % is a whole number: the limits are two of the resamples
MANY = 2000  # documents, from which on the mean is normal enough without resampling
FEWEST = 4  # documents, below which too many resamples hold one document only


@dataclass(frozen=True)
class Interval:
    """value: as measured. low, high: the 95 % interval. n: examples, documents or seeds that it rests on."""

    value: float
    low: float
    high: float
    n: int

    def excludes(self, value: float) -> bool:
        """Whether the data speak against `value`. Of a difference, excludes(0) means that it can be told from none."""
        return not self.low <= value <= self.high

    def through(self, function: Callable[[float], float]) -> Interval:
        """The interval of a monotone function of the value, such as perplexity, exp, of nats."""
        ends = [end if math.isinf(end) else function(end) for end in (self.low, self.high)]
        return Interval(function(self.value), min(ends), max(ends), self.n)


@dataclass(frozen=True)
class Worst:
    """value: the worst of n seeds. worse: with 95 % confidence, no more than this share of all seeds is worse."""

    value: float
    worse: float
    n: int


def verdict(difference: Interval, *, lower_is_better: bool) -> str:
    """`better`, `worse` or `not distinguishable`, said of the first model of a difference."""
    if not difference.excludes(0.0):
        return "not distinguishable"
    return "better" if (difference.value < 0) == lower_is_better else "worse"


# Shares


def wilson(right: float, answers: float) -> Interval:
    """Of a share of independent answers (Wilson 1927; the score interval)."""
    return _wilson(right / answers, answers, round(answers))


def _wilson(value: float, answers: float, n: int) -> Interval:
    """answers: the effective number of them. n: the number to report."""
    spread = Z * Z / answers
    middle = (value + spread / 2) / (1 + spread)
    half = Z * math.sqrt(value * (1 - value) / answers + spread / answers / 4) / (1 + spread)
    return Interval(value, 0.0 if value == 0 else middle - half, 1.0 if value == 1 else middle + half, n)


def share(right: ArrayLike, answers: ArrayLike) -> Interval:
    """Of the share of answers that are right. right, answers: (E,), of each example.

    Wilson's interval with the effective number of answers: answers divided by the design effect (Kish 1965, 8.2), which
    is the linearised variance between examples over that of independent answers, and shrunk for the degrees of freedom
    (Korn and Graubard 1998). The design effect is only as well known as examples with a right and with a wrong answer
    are many. So it counts as if one more example had shown answers that are all alike. If all answers are right, or
    all wrong, this is all there is: each example counts as one answer.
    """
    r, a = _floats(right, answers)
    examples, total = len(r), float(a.sum())
    value = float(r.sum()) / total
    alike = float(a @ a) / total  # the design effect if the answers of an example are always all right or all wrong
    if alike == 1.0:
        return _wilson(value, total, examples)
    if examples == 1:
        return Interval(value, 0.0, 1.0, 1)
    effect = alike
    if 0 < value < 1:
        known = min(np.count_nonzero(r), np.count_nonzero(r < a))
        rest = r - value * a
        seen = examples / (examples - 1) * float(rest @ rest) / (total * value * (1 - value))
        effect = max(1.0, (known * seen + alike) / (known + 1))
    effective = total / effect * (Z / t_quantile(examples - 1)) ** 2
    return _wilson(value, effective, examples)


def share_difference(right: ArrayLike, other: ArrayLike, answers: ArrayLike) -> Interval:
    """Of the share of the first model minus that of the other, on the same examples. right, other, answers: (E,).

    Bonett and Price (2012): two examples are added, one that only the first model answers right and one that
    only the other does. For several answers an example, the variance is linearised between examples, and the two added
    ones are as large as the differences seen (root mean square, with one of full size among them).
    """
    r, o, a = _floats(right, other, answers)
    examples, total = len(r), float(a.sum())
    difference, full = r - o, total / examples
    size = math.sqrt((float(difference @ difference) + full**2) / (np.count_nonzero(difference) + 1))
    d, n = np.append(difference, (size, -size)), np.append(a, (size, size))
    middle = float(d.sum() / n.sum())
    rest = d - middle * n
    half = (Z if bool((a == 1).all()) else t_quantile(examples)) * math.sqrt(float(rest @ rest)) / float(n.sum())
    value = float(difference.sum()) / total
    return Interval(value, max(-1.0, min(value, middle - half)), min(1.0, max(value, middle + half)), examples)


# Losses


def loss(nats: ArrayLike, units: ArrayLike, *, seed: int = 0) -> Interval:
    """Of a loss over documents, sum(nats) / sum(units). nats: (D,); units: (D,), bytes or tokens.

    The bootstrap-t over documents (Efron 1981): each resample gives (its loss - the loss) / its standard
    error, which is that of a ratio of sums (Cochran 1977). It holds for skewed documents from about 20 on,
    where the percentile and the BCa bootstrap are too narrow. Below 4 documents there is no interval. No end is below
    0, as no loss is.
    """
    found = _ratio(nats, units, seed)
    unknown = math.isinf(found.low) and math.isinf(found.high)
    return found if unknown else Interval(found.value, max(0.0, found.low), max(0.0, found.high), found.n)


def _ratio(nats: ArrayLike, units: ArrayLike, seed: int) -> Interval:
    """Of sum(nats) / sum(units), which may have either sign."""
    y, x = _floats(nats, units)
    documents, total = len(y), float(x.sum())
    value = float(y.sum()) / total
    if documents < FEWEST or not math.isfinite(value):
        return Interval(value, -math.inf, math.inf, documents)
    rest = y - value * x
    error = math.sqrt(documents / (documents - 1) * float(rest @ rest)) / total
    if documents >= MANY:
        return Interval(
            value, value - t_quantile(documents - 1) * error, value + t_quantile(documents - 1) * error, documents
        )
    if error <= 1e-12 * abs(value):  # copies of one document, or a loss of 0: nothing is known about others
        return Interval(value, -math.inf, math.inf, documents)
    counts = _resamples(documents, seed)  # (RESAMPLES, D): how often each document was drawn
    units_drawn = counts @ x
    off = counts @ rest / units_drawn  # the resample's loss - the loss
    squares = counts @ (rest * rest) - 2 * off * (counts @ (rest * x)) + off * off * (counts @ (x * x))
    errors = np.sqrt(np.maximum(squares, 0.0) * documents / (documents - 1)) / units_drawn
    flat = errors <= 1e-9 * error  # one document drawn over and over: off by any number of standard errors
    t = np.where(flat, np.copysign(np.inf, off), off / np.where(flat, 1.0, errors))
    t.sort()
    first = round((RESAMPLES + 1) * (1 - LEVEL) / 2) - 1
    return Interval(value, value - float(t[-1 - first]) * error, value - float(t[first]) * error, documents)


def loss_difference(nats: ArrayLike, other: ArrayLike, units: ArrayLike, *, seed: int = 0) -> Interval:
    """Of the loss of the first model minus that of the other, on the same documents: see `loss`. All (D,)."""
    first, second = _floats(nats, other)
    return _ratio(first - second, units, seed)


def spread(values: ArrayLike) -> Interval:
    """Of the standard deviation between documents. values: (D,), one number a document.

    The jackknife of its logarithm, with Student's t (Miller 1968, Ann. Math. Stat. 39, 567). It holds for values about
    as regular as normal ones, and is too narrow for very skewed ones. Below 4 documents there is no interval.
    """
    (v,) = _floats(values)
    documents = len(v)
    value = float(v.std(ddof=1)) if documents > 1 else math.nan
    rest = (v - v.mean()) ** 2
    # The variance without each document in turn, from the sums with all of them.
    without = (rest.sum() - rest * documents / (documents - 1)) / (documents - 2) if documents >= FEWEST else rest
    if documents < FEWEST or not without.min() > 1e-24 * float(v.mean()) ** 2:
        return Interval(value, -math.inf, math.inf, documents)
    pseudo = documents * math.log(value) - (documents - 1) * np.log(without) / 2
    half = t_quantile(documents - 1) * float(pseudo.std(ddof=1)) / math.sqrt(documents)
    return Interval(value, math.exp(float(pseudo.mean()) - half), math.exp(float(pseudo.mean()) + half), documents)


@lru_cache(maxsize=4)
def _resamples(documents: int, seed: int) -> Array:
    rng = np.random.default_rng([seed, documents])
    return rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES).astype(np.float64)


# Seeds


def mean(values: ArrayLike) -> Interval:
    """Of a mean over seeds, by Student's t. values: (S,). Seeds that are exactly equal tell nothing about others."""
    (v,) = _floats(values)
    seeds, value = len(v), float(v.mean())
    error = float(v.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    if not error > 1e-12 * abs(value):
        return Interval(value, -math.inf, math.inf, seeds)
    half = t_quantile(seeds - 1) * error
    return Interval(value, value - half, value + half, seeds)


def share_over_seeds(shares: ArrayLike, answers: float) -> Interval:
    """Of a mean of shares over seeds. shares: (S,). answers: how many each was measured on, those alike counted once.

    Wilson's interval with the effective number of answers that the spread between seeds says, or that were counted,
    whichever is less, and with Student's t (Korn and Graubard 1998). So five seeds that are all right have an
    interval too. It takes seeds to be of one kind: if some seeds learn a task and others do not, read `worst`.
    """
    (v,) = _floats(shares)
    seeds, value = len(v), float(v.mean())
    if seeds == 1:
        return Interval(value, 0.0, 1.0, 1)
    effective = seeds * float(answers)
    variance = float(v.var(ddof=1)) / seeds
    if variance > 0:
        effective = min(effective, value * (1 - value) / variance)
    effective *= (Z / t_quantile(seeds - 1)) ** 2
    return _wilson(value, effective, seeds)


def mean_difference(values: ArrayLike, other: ArrayLike) -> Interval:
    """Of a mean over seeds minus another over other seeds: Welch 1947, with Satterthwaite's degrees of freedom.

    Two variants that share their seeds, data order included, may be paired: `mean(values - other)`.
    """
    v, o = _floats(values, other, same=False)
    value, seeds = float(v.mean() - o.mean()), min(len(v), len(o))
    if seeds < 2:
        return Interval(value, -math.inf, math.inf, seeds)
    parts = [float(x.var(ddof=1)) / len(x) for x in (v, o)]
    variance = sum(parts)
    if not variance > (1e-12 * max(abs(float(v.mean())), abs(float(o.mean())))) ** 2:
        return Interval(value, -math.inf, math.inf, seeds)
    freedom = variance**2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (v, o), strict=True))
    half = t_quantile(freedom) * math.sqrt(variance)
    return Interval(value, value - half, value + half, seeds)


def difference(first: Interval, other: Interval) -> Interval:
    """Of the first value minus the other, measured independently: on other examples, or over other seeds.

    The square-and-add rule: Newcombe 1998, method 10, for shares; Zou and Donner 2008 for any two intervals.
    """
    value = first.value - other.value
    low = value - math.hypot(first.value - first.low, other.high - other.value)
    high = value + math.hypot(first.high - first.value, other.value - other.low)
    return Interval(value, low, high, min(first.n, other.n))


def worst(values: Sequence[float], *, lower_is_better: bool = False) -> Worst:
    """The worst of n seeds, and how many of all seeds may be worse: 1 - 0.05^(1/n) (Wilks 1941), 45 % for n = 5."""
    value = max(values) if lower_is_better else min(values)
    return Worst(float(value), 1 - (1 - LEVEL) ** (1 / len(values)), len(values))


def slope(x: ArrayLike, y: ArrayLike) -> Interval:
    """Of the slope of a straight line through points, (P,) each: least squares, Student's t with P - 2.

    The exponent of a power law is the slope of log y over log x.
    """
    across, up = _floats(x, y)
    points = len(across)
    along = across - across.mean()
    value = float(along @ up / (along @ along))
    if points < 3:
        return Interval(value, -math.inf, math.inf, points)
    rest = up - up.mean() - value * along
    half = t_quantile(points - 2) * math.sqrt(float(rest @ rest) / (points - 2) / float(along @ along))
    return Interval(value, value - half, value + half, points)


_NODES = np.polynomial.legendre.leggauss(64)


@lru_cache(maxsize=256)
def t_quantile(freedom: float) -> float:
    """The 97.5 % quantile of Student's t, for any number of degrees of freedom from 1 on. NumPy has none.

    P(|T| < t) is C * integral of cos(a)^(freedom - 1) over |a| < atan(t / sqrt(freedom)). The integral is Gauss's rule;
    it is concave in the angle, so Newton's steps from 0 never go too far.
    """
    nodes, weights = _NODES
    scale = 2 * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angle = 0.0
    for _ in range(30):
        within = scale * angle / 2 * float(weights @ np.cos(angle / 2 * (nodes + 1)) ** (freedom - 1))
        step = (LEVEL - within) / (scale * math.cos(angle) ** (freedom - 1))
        angle += step
        if abs(step) < 1e-14:
            break
    return math.tan(angle) * math.sqrt(freedom)


def _floats(*arrays: ArrayLike, same: bool = True) -> list[Array]:
    found = [np.asarray(array, dtype=np.float64) for array in arrays]
    assert all(array.ndim == 1 and len(array) for array in found), "one number for each example, document or seed"
    assert not same or len({len(array) for array in found}) == 1, "the same examples, documents or seeds"
    return found
