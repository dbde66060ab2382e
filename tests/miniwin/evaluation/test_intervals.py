"""Intervals: published numbers, slow references, and how often they hold the truth on simulated scores.

Coverage is counted over 2,000 draws of a fixed seed, so a test passes or fails for good. The count of a 95 % interval
itself is off by 0.5 % (one standard deviation), hence 93 to 97 %. A share of n answers takes n + 1 values only, so at
one p and n the coverage is off by more, up and down (exact_coverage shows how far). What an interval promises is the
mean over p; so p is drawn, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import Interval, t_quantile

DRAWS = 2000


def coverage(draw: Callable[[np.random.Generator], tuple[Interval, float]]) -> float:
    rng = np.random.default_rng(20)
    return float(np.mean([not interval.excludes(truth) for interval, truth in (draw(rng) for _ in range(DRAWS))]))


def answered(rng: np.random.Generator, examples: int, each: int, p: float, alike: float) -> np.ndarray:
    """(E,) right answers, of which those of one example have the correlation `alike` (beta-binomial)."""
    k = (1 - alike) / alike
    return rng.binomial(each, rng.beta(p * k, (1 - p) * k, examples))


def documents(rng: np.random.Generator, number: int, spread: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """nats and bytes, (D,) each: skewed losses around exp(spread^2 / 2), of texts of several sizes."""
    units = rng.integers(500, 2000, number).astype(float)
    return units * np.exp(rng.normal(0, spread, number)), units


# Coverage: the truth is inside in 93 to 97 % of 2,000 draws.


def independent(rng: np.random.Generator) -> tuple[Interval, float]:
    p = rng.uniform()
    return intervals.wilson(rng.binomial(64, p), 64), p


def rare(rng: np.random.Generator) -> tuple[Interval, float]:
    p = rng.choice((1, -1)) * rng.uniform(0.01, 0.05) % 1
    return intervals.wilson(rng.binomial(400, p), 400), p


def clustered(rng: np.random.Generator) -> tuple[Interval, float]:
    p = rng.uniform(0.02, 0.98)
    return intervals.share(answered(rng, 64, 8, p, 0.3), np.full(64, 8)), p


def barely_clustered(rng: np.random.Generator) -> tuple[Interval, float]:
    p = rng.uniform(0.1, 0.9)
    return intervals.share(answered(rng, 64, 4, p, 0.01), np.full(64, 4)), p


def of_several_sizes(rng: np.random.Generator) -> tuple[Interval, float]:
    p, answers = rng.uniform(0.05, 0.95), rng.integers(1, 9, 80)
    k = 0.6 / 0.4
    return intervals.share(rng.binomial(answers, rng.beta(p * k, (1 - p) * k, 80)), answers), p


def two_models(each: int) -> Callable[[np.random.Generator], tuple[Interval, float]]:
    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        p, gain = rng.uniform(0.3, 0.8), rng.uniform(-0.1, 0.1)
        hard = rng.beta(p * 2, (1 - p) * 2, 100)  # an example that is hard for one model is for both
        easier = np.where(rng.uniform(size=100) < 0.5, hard, rng.beta(p * 2, (1 - p) * 2, 100))
        first, other = rng.binomial(each, easier * (1 - abs(gain))), rng.binomial(each, hard)
        return intervals.share_difference(first, other, np.full(100, each)), -abs(gain) * p

    return draw


def losses(number: int) -> Callable[[np.random.Generator], tuple[Interval, float]]:
    return lambda rng: (intervals.loss(*documents(rng, number)), math.exp(0.4**2 / 2))


def two_losses(rng: np.random.Generator) -> tuple[Interval, float]:
    nats, units = documents(rng, 24)
    gain = rng.gamma(2.0, 0.05, 24)  # skewed, and 0.1 on average
    return intervals.loss_difference(nats - gain * units, nats, units), -0.1


def seeds(rng: np.random.Generator) -> tuple[Interval, float]:
    return intervals.mean(rng.normal(1.3, 0.02, 5)), 1.3


def shares_of_seeds(rng: np.random.Generator) -> tuple[Interval, float]:
    p = rng.uniform(0.2, 0.95)
    return intervals.share_over_seeds(answered(rng, 5, 256, p, 0.02) / 256, 256), p


def two_variants(rng: np.random.Generator) -> tuple[Interval, float]:
    return intervals.mean_difference(rng.normal(1.3, 0.02, 5), rng.normal(1.4, 0.05, 6)), -0.1


def two_shares(rng: np.random.Generator) -> tuple[Interval, float]:
    p, q = rng.uniform(0.1, 0.9, 2)
    return intervals.difference(
        intervals.wilson(rng.binomial(80, p), 80), intervals.wilson(rng.binomial(120, q), 120)
    ), p - q


def exponent(rng: np.random.Generator) -> tuple[Interval, float]:
    x = np.log([1024, 2048, 4096, 8192])
    return intervals.slope(x, 1.1 * x + rng.normal(0, 0.05, 4)), 1.1


def spreads(number: int) -> Callable[[np.random.Generator], tuple[Interval, float]]:
    return lambda rng: (intervals.spread(rng.normal(1.2, 0.4, number)), 0.4)


KINDS = {
    "independent answers": independent,
    "shares near 0 and 1": rare,
    "several answers an example": clustered,
    "several answers, hardly alike": barely_clustered,
    "unequal numbers of answers": of_several_sizes,
    "two models, one answer an example": two_models(1),
    "two models, several answers": two_models(4),
    "losses of 20 documents": losses(20),
    "losses of 50 documents": losses(50),
    "two models' losses": two_losses,
    "mean over seeds": seeds,
    "mean of shares over seeds": shares_of_seeds,
    "two variants over seeds": two_variants,
    "two shares of other examples": two_shares,
    "exponent": exponent,
    "spread between 16 documents": spreads(16),
    "spread between 50 documents": spreads(50),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_95_percent_interval_holds_the_truth_in_93_to_97_percent_of_draws(kind: str) -> None:
    assert 0.93 <= coverage(KINDS[kind]) <= 0.97


def few_differences(rng: np.random.Generator) -> tuple[Interval, float]:
    first = rng.random(60) < 0.95
    other = np.where(rng.random(60) < 0.9, first, rng.random(60) < 0.95)
    return intervals.share_difference(first, other, np.ones(60)), 0.0


def few_wrong_examples(rng: np.random.Generator) -> tuple[Interval, float]:
    return intervals.share(answered(rng, 50, 8, 0.98, 0.5), np.full(50, 8)), 0.98


def many_documents(rng: np.random.Generator) -> tuple[Interval, float]:
    return intervals.loss(*documents(rng, intervals.MANY)), math.exp(0.4**2 / 2)


@pytest.mark.parametrize("draw", [few_differences, few_wrong_examples, many_documents])
def test_where_little_was_seen_the_interval_is_rather_too_wide(draw: Callable[..., tuple[Interval, float]]) -> None:
    assert coverage(draw) >= 0.93


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.98])
def test_exact_coverage_of_wilson_swings_around_95_percent(p: float) -> None:
    n = 200
    held = (k for k in range(n + 1) if not intervals.wilson(k, n).excludes(p))
    exact_coverage = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in held)
    assert 0.92 <= exact_coverage <= 0.98


# Published numbers and slow references.


@pytest.mark.parametrize(
    ("right", "answers", "low", "high"),  # Newcombe 1998 (Stat. Med. 17, 857), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_limits(right: int, answers: int, low: float, high: float) -> None:
    found = intervals.wilson(right, answers)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    flipped = intervals.wilson(answers - right, answers)
    assert (flipped.low, flipped.high) == pytest.approx((1 - found.high, 1 - found.low))


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),  # Newcombe 1998 (Stat. Med. 17, 873), table II, method 10
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_a_difference_of_shares_has_the_published_limits(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    found = intervals.difference(intervals.wilson(*a), intervals.wilson(*b))
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980), (1e6, 1.960)]
)
def test_students_t_is_the_table(freedom: float, quantile: float) -> None:
    assert round(t_quantile(freedom), 3) == quantile


def test_students_t_and_what_stands_on_it_equal_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 1.7, 3, 8.25, 60, 1000):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=5), rng.normal(1, 3, size=7)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    found = intervals.mean_difference(a, b)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))
    one = stats.ttest_1samp(a, 0).confidence_interval()
    assert (intervals.mean(a).low, intervals.mean(a).high) == pytest.approx((one.low, one.high))
    line = stats.linregress(b, 2 * b + a.mean() * b**2)
    half = line.stderr * stats.t.ppf(0.975, 5)
    found = intervals.slope(b, 2 * b + a.mean() * b**2)
    assert (found.value, found.low, found.high) == pytest.approx((line.slope, line.slope - half, line.slope + half))


def test_the_bootstrap_equals_one_that_draws_documents_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    nats, units = documents(rng, 12)
    drawn = [rng.integers(0, 12, 12) for _ in range(intervals.RESAMPLES)]
    counts = np.array([np.bincount(picks, minlength=12) for picks in drawn], dtype=np.float64)

    def ratio(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
        value = y.sum() / x.sum()
        return value, math.sqrt(12 / 11 * ((y - value * x) ** 2).sum()) / x.sum()

    value, error = ratio(nats, units)
    t = sorted((r - value) / e for r, e in (ratio(nats[picks], units[picks]) for picks in drawn))
    monkeypatch.setattr(intervals, "_resamples", lambda documents, seed: counts)
    found = intervals.loss(nats, units)
    assert (found.low, found.high) == pytest.approx((value - t[1949] * error, value - t[49] * error))


def test_a_loss_is_never_below_0_and_a_difference_may_be() -> None:
    nats = [0.01, 0.0, 0.02, 9.0, 0.01]
    found, difference = intervals.loss(nats, [1.0] * 5), intervals.loss_difference(nats, [0.0] * 5, [1.0] * 5)
    assert found.low == 0.0 > difference.low and found.high == difference.high


def test_a_paired_difference_of_shares_is_bonett_and_prices_interval() -> None:
    first = np.array([1] * 40 + [1] * 12 + [0] * 5 + [0] * 43)  # 12 only the first, 5 only the other
    other = np.array([1] * 40 + [0] * 12 + [1] * 5 + [0] * 43)
    p, q = 13 / 102, 6 / 102
    half = intervals.Z * math.sqrt((p + q - (p - q) ** 2) / 102)
    found = intervals.share_difference(first, other, np.ones(100))
    assert (found.value, found.low, found.high) == pytest.approx((0.07, p - q - half, p - q + half))


# What is not known is not made up.


def nothing_known() -> Iterator[Interval]:
    yield intervals.loss([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    yield intervals.loss([2.0] * 30, [1.0] * 30)  # the same document thirty times
    yield intervals.loss_difference([2.0] * 30, [2.0] * 30, [1.0] * 30)
    yield intervals.loss([1.0, 2.0, math.nan, 1.5, 1.2], [1.0] * 5)
    yield intervals.mean([1.0])
    yield intervals.mean([0.1 + 0.2] * 5)
    yield intervals.mean_difference([1.0], [2.0, 3.0])
    yield intervals.mean_difference([1.0, 1.0], [2.0, 2.0])
    yield intervals.slope([1.0, 2.0], [3.0, 4.0])


@pytest.mark.parametrize("found", list(nothing_known()))
def test_too_few_draws_have_no_limits(found: Interval) -> None:
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert not found.excludes(1e9) and intervals.verdict(found, lower_is_better=True) == "not distinguishable"


def test_a_share_of_one_draw_could_be_anything() -> None:
    assert intervals.share([6], [8]) == Interval(0.75, 0.0, 1.0, 1)
    assert intervals.share_over_seeds([0.75], 100) == Interval(0.75, 0.0, 1.0, 1)


def test_all_right_still_has_an_interval() -> None:
    alone = intervals.wilson(50, 50)
    several = intervals.share(np.full(50, 8), np.full(50, 8))  # 50 examples: 400 answers could all be right together
    assert several.value == several.high == 1.0
    assert alone.low - 0.01 < several.low < alone.low
    assert intervals.share(np.zeros(50), np.full(50, 8)).high == pytest.approx(1 - several.low)
    assert 0.98 < intervals.share_over_seeds([1.0] * 5, 200).low < 0.995
    assert (
        0.98 < intervals.share_over_seeds([0.999, 1.0, 1.0, 1.0, 1.0], 200).low < 0.995
    )  # a little spread says no more
    both = intervals.share_difference(np.ones(100), np.ones(100), np.ones(100))
    assert both.value == 0.0 and both.high == -both.low > 0.02


def test_one_answer_an_example_is_plain_wilson() -> None:
    right = np.arange(40) % 3 == 0
    found, plain = intervals.share(right, np.ones(40)), intervals.wilson(right.sum(), 40)
    assert (found.low, found.high, found.n) == (plain.low, plain.high, 40)


def test_answers_that_are_all_alike_count_as_one() -> None:
    right = np.where(np.arange(400) % 3 == 0, 8, 0)
    found, plain = intervals.share(right, np.full(400, 8)), intervals.wilson((right > 0).sum(), 400)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-3)


def test_a_loss_is_the_same_each_time_and_scales_with_its_unit() -> None:
    nats, units = documents(np.random.default_rng(1), 30)
    found = intervals.loss(nats, units)
    assert found == intervals.loss(nats, units) != intervals.loss(nats, units, seed=1)
    bits = intervals.loss(nats / math.log(2), units)
    scaled = found.through(lambda x: x / math.log(2))
    assert (bits.low, bits.high) == pytest.approx((scaled.low, scaled.high))
    mirrored = found.through(lambda x: -x)
    assert mirrored == Interval(-found.value, -found.high, -found.low, 30)


def test_a_verdict_says_better_worse_or_neither() -> None:
    assert intervals.verdict(Interval(-0.1, -0.2, -0.05, 9), lower_is_better=True) == "better"
    assert intervals.verdict(Interval(-0.1, -0.2, -0.05, 9), lower_is_better=False) == "worse"
    assert intervals.verdict(Interval(-0.1, -0.2, 0.05, 9), lower_is_better=True) == "not distinguishable"


def test_the_worst_seed_says_how_many_may_be_worse() -> None:
    assert intervals.worst([0.99, 0.97, 1.0, 0.98, 0.99]) == intervals.Worst(0.97, pytest.approx(0.4507, abs=1e-4), 5)
    assert intervals.worst([1.2, 1.5], lower_is_better=True).value == 1.5
    # the best of 59 draws: 95 % confidence that 95 % are no worse (Wilks 1941)
    assert intervals.worst([1.0] * 59).worse < 0.05 < intervals.worst([1.0] * 58).worse
