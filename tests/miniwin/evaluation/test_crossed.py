"""Intervals over seeds and text at once: a slow reference, and how often they hold the truth on simulated scores.

Coverage is counted over 2,000 draws of a fixed seed, so a test passes or fails for good (see test_intervals.py).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from miniwin.evaluation import intervals
from miniwin.evaluation.crossed import loss_difference, share_difference
from miniwin.evaluation.intervals import Interval, t_quantile

DRAWS = 2000
TRUTH = -0.1

# Standard deviations of what seeds, documents, and seeds on documents add to a difference.
MIXES = {
    "seeds matter": (0.02, 0.005, 0.005),
    "text matters": (0.001, 0.05, 0.02),
    "both alike": (0.01, 0.03, 0.03),
    "text alone": (0.0, 0.05, 0.01),
}


def draw(rng: np.random.Generator, seeds: int, documents: int, mix: tuple[float, float, float]) -> Interval:
    """The interval of one simulated confirmation. Documents differ in size, and differences are skewed over them."""
    of_seed, of_document, of_both = mix
    units = rng.integers(500, 2000, documents).astype(float)
    gain = TRUTH + rng.normal(0, of_seed, seeds)[:, None]
    gain = gain + (rng.gamma(4.0, 0.5, documents) - 2) * of_document + rng.normal(0, of_both, (seeds, documents))
    other = np.tile(np.exp(rng.normal(0, 0.4, documents)) * units, (seeds, 1))
    return loss_difference(other + gain * units, other, units)


def held(found: list[tuple[Interval, float]]) -> float:
    return float(np.mean([not interval.excludes(truth) for interval, truth in found]))


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_truth_is_inside_in_93_to_97_percent_of_draws(seeds: int, mix: str) -> None:
    rng = np.random.default_rng(20)
    assert 0.93 <= held([(draw(rng, seeds, 32, MIXES[mix]), TRUTH) for _ in range(DRAWS)]) <= 0.97


@pytest.mark.parametrize("mix", MIXES)
def test_an_interval_over_one_kind_of_chance_would_be_too_narrow(mix: str) -> None:
    """So the mixes above can tell: what is left out shows where it matters."""
    rng = np.random.default_rng(20)
    of_seed, of_document, _ = MIXES[mix]
    over_seeds, over_text = [], []
    for _ in range(500):
        noise = rng.normal(0, of_seed, 3)[:, None] + rng.normal(0, of_document, 32)
        over_seeds.append((intervals.mean(noise.mean(1) + rng.normal(0, 1e-6, 3)), 0.0))
        over_text.append((intervals.loss_difference(noise.mean(0), np.zeros(32), np.ones(32)), 0.0))
    assert min(held(over_seeds), held(over_text)) < 0.9


def test_with_two_seeds_it_is_never_too_narrow() -> None:
    for mix in MIXES.values():
        rng = np.random.default_rng(20)
        assert held([(draw(rng, 2, 32, mix), TRUTH) for _ in range(DRAWS)]) >= 0.93


def test_noise_of_single_cells_is_never_too_narrow() -> None:
    rng = np.random.default_rng(20)
    assert held([(draw(rng, 3, 32, (0.0, 0.0, 0.05)), TRUTH) for _ in range(DRAWS)]) >= 0.95


def test_shares_hold_the_truth() -> None:
    rng = np.random.default_rng(20)
    found = []
    for _ in range(DRAWS):
        p, loss = rng.uniform(0.3, 0.8), rng.uniform(0, 0.15)
        easy = rng.beta(p * 2, (1 - p) * 2, 64)
        kept = np.clip(1 - loss + rng.normal(0, 0.1, 3), 0, 1)[:, None]
        first, other = rng.binomial(4, easy * kept), rng.binomial(4, np.tile(easy, (3, 1)))
        found.append((share_difference(first, other, np.full(64, 4)), -loss * p))
    assert 0.93 <= held(found) <= 0.99


def test_it_is_what_the_formula_says() -> None:
    """Sums written out, one cell after the other."""
    rng = np.random.default_rng(0)
    S, D = 3, 5
    units = rng.uniform(1, 2, D)
    first, other = rng.normal(1, 0.1, (S, D)) * units, rng.normal(1, 0.1, (S, D)) * units
    value = sum(first[s, d] - other[s, d] for s in range(S) for d in range(D)) / S / sum(units)
    z = [[D * (first[s, d] - other[s, d] - value * units[d]) / sum(units) for d in range(D)] for s in range(S)]
    rows = [sum(z[s]) / D for s in range(S)]
    columns = [sum(z[s][d] for s in range(S)) / S for d in range(D)]
    seed = sum(a * a for a in rows) / (S * (S - 1))
    text = sum(b * b for b in columns) / (D * (D - 1))
    cell = sum((z[s][d] - rows[s] - columns[d]) ** 2 for s in range(S) for d in range(D))
    cell /= S * D * (S - 1) * (D - 1)
    variance = max(seed + text - cell, seed, text)
    freedom = variance**2 / (seed**2 / (S - 1) + text**2 / (D - 1))
    half = t_quantile(max(freedom, 1.0)) * math.sqrt(variance)
    found = loss_difference(first, other, units)
    assert found.value == pytest.approx(value) and found.n == S
    assert (found.low, found.high) == (pytest.approx(value - half), pytest.approx(value + half))


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    nats = np.ones((3, 8))
    for first, other in (
        (nats[:1], nats[:1] * 2),  # one seed
        (nats[:, :3], nats[:, :3] * 2),  # three documents
        (nats, nats),  # the same model twice
        (nats, np.where(np.arange(8) == 0, np.nan, nats)),  # a training that diverged
    ):
        found = loss_difference(first, other, np.ones(first.shape[1]))
        assert (found.low, found.high) == (-math.inf, math.inf) and not found.excludes(0.0)
    right = np.full((3, 20), 4)
    same = share_difference(right, right, np.full(20, 4))
    assert same.value == 0 and -0.2 < same.low < 0 < same.high < 0.2
    one = share_difference(right[:1], right[:1], np.full(20, 4))
    assert (one.low, one.high) == (-1.0, 1.0)
