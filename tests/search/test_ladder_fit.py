"""The lines of a ladder: what they say of losses that follow a law, and how often their intervals hold the truth.

Coverage is counted over draws of a fixed seed, so a test passes or fails for good.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from miniwin.search.ladder import fit
from miniwin.search.ladder.fit import Scored, Spread

DRAWS = 250
COMPUTE = np.array([[1e13, 9e13, 8.1e14]] * 2)
SEEDS = (3, 3, 1)
ALPHA = 0.15


def truth(floor: float, speed: float) -> NDArray[np.float64]:
    """Losses (2, 3) of a variant that needs `speed` times less compute than the other, whose first loss is 1.3."""
    height = (1.3 - floor) * 1e13**ALPHA
    return floor + height * (COMPUTE * np.array([[speed], [1.0]])) ** -ALPHA


def draw(
    rng: np.random.Generator,
    floor: float,
    speed: float,
    spread: tuple[float, ...] = (0.005, 0.005, 0.005),
    document: float = 0.03,
) -> Scored:
    """A ladder with a spread between seeds that variants share in part, 32 documents, and noise in each cell."""
    units = rng.integers(500, 2000, 32).astype(float)
    hard = np.exp(rng.normal(0, 0.4, 32))
    hard /= (hard * units).sum() / units.sum()
    liking = rng.normal(0, document, (2, 32))  # what a variant is good at
    nats = []
    for size, seeds in enumerate(SEEDS):
        shared, own = rng.normal(0, 1, seeds), rng.normal(0, 1, (2, seeds))
        loss = truth(floor, speed)[:, size, None] * (1 + spread[size] * (0.5 * shared + 0.87 * own))
        cells = liking[:, None, :] + rng.normal(0, 0.02, (2, seeds, 32))
        nats.append((loss[:, :, None] * hard + truth(floor, speed)[:, size, None, None] * cells) * units)
    return Scored(COMPUTE, [one.sum(2) / units.sum() for one in nats], nats, units)


def exact(floor: float, speed: float) -> Scored:
    losses = truth(floor, speed)
    return Scored(COMPUTE, [np.repeat(losses[:, size, None], 3, axis=1) for size in range(3)])


def held(found: list[tuple[fit.Interval, float]]) -> float:
    return float(np.mean([one.low <= value <= one.high for one, value in found]))


@pytest.mark.parametrize("share", fit.FLOORS)
def test_a_law_is_found_again(share: float) -> None:
    lowest = 1.3 * 0.6
    scored = exact(share * lowest, 1.4)
    scored = Scored(scored.compute, scored.runs)
    known = (share * lowest / scored.lowest,)
    assert fit.slope(scored, floors=known).value == pytest.approx(ALPHA)
    assert fit.speed_up(scored, 0, 1, floors=known).value == pytest.approx(1.4)
    assert fit.speed_up(scored, 1, 0, floors=known).value == pytest.approx(1 / 1.4)
    assert fit.trend(scored, 0, 1, floors=known).value == pytest.approx(1.0)
    for size in range(3):
        assert fit.speed_up_at(scored, size, 0, 1, floors=known).value == pytest.approx(1.4)
    below = Scored(COMPUTE[:, :2], scored.runs[:2])
    floors = (share * lowest / below.lowest,)
    for weights in ([1, 0], [0, 1], [1, -1]):
        found = fit.predict(below, COMPUTE[:, 2], weights, 1, floors)
        assert found.value == pytest.approx(float(weights @ scored.losses[:, 2]))


def test_compute_that_differs_counts() -> None:
    """A variant with the same losses for half the compute is twice as fast."""
    losses = truth(0.0, 1.0)
    compute = COMPUTE * np.array([[0.5], [1.0]])
    scored = Scored(compute, [losses[[1, 1], size, None] for size in range(3)])
    assert fit.speed_up(scored, 0, 1, floors=(0.0,)).value == pytest.approx(2.0)
    assert fit.speed_up_at(scored, 1, 0, 1, floors=(0.0,)).value == pytest.approx(2.0)


@pytest.mark.parametrize(("floor", "speed"), [(0.0, 1.0), (0.0, 1.5), (0.3, 1.5), (0.4, 1.0)])
def test_the_speed_up_is_inside_in_93_to_98_percent_of_draws(floor: float, speed: float) -> None:
    rng = np.random.default_rng(20)
    found = [(fit.speed_up(draw(rng, floor, speed), 0, 1), speed) for _ in range(DRAWS)]
    assert 0.93 <= held(found) <= 0.98


def test_a_difference_at_one_size_is_inside_too() -> None:
    rng = np.random.default_rng(20)
    losses = truth(0.3, 1.2)
    drawn = [draw(rng, 0.3, 1.2) for _ in range(DRAWS)]
    for size in range(3):  # the largest has one seed
        found = [(fit.difference(one, size, 0, 1), float(losses[0, size] - losses[1, size])) for one in drawn]
        assert 0.93 <= held(found) <= 0.99


def predictions(
    rng: np.random.Generator, floor: float, spread: tuple[float, ...], known: bool, weights: list[int]
) -> float:
    found = []
    for _ in range(DRAWS):
        scored = draw(rng, floor, 1.3, spread)
        below = Scored(COMPUTE[:, :2], scored.runs[:2])
        floors = (floor / below.lowest,) if known else fit.FLOORS
        found.append((fit.predict(below, COMPUTE[:, 2], weights, 1, floors), float(weights @ scored.losses[:, 2])))
    return held(found)


@pytest.mark.parametrize("weights", [[1, 0], [0, 1], [1, -1]])
def test_predictions_hold_what_comes(weights: list[int]) -> None:
    same, falling = (0.005, 0.005, 0.005), (0.006, 0.004, 0.003)
    assert 0.93 <= predictions(np.random.default_rng(20), 0.3, same, True, weights) <= 0.98
    assert predictions(np.random.default_rng(20), 0.3, falling, True, weights) >= 0.95  # as spreads do
    for floor in (0.0, 0.4):  # not known
        assert predictions(np.random.default_rng(20), floor, same, False, weights) >= 0.95


def test_an_interval_over_one_kind_of_chance_would_be_too_narrow() -> None:
    """So the draws can tell: what is left out shows."""
    rng = np.random.default_rng(20)
    drawn = [draw(rng, 0.3, 1.5) for _ in range(DRAWS)]
    seeds = [(fit.speed_up(Scored(one.compute, one.runs), 0, 1), 1.5) for one in drawn]
    assert held(seeds) < 0.9


def test_it_is_what_the_formula_says() -> None:
    """The variance of one difference, with sums written out; the spread between seeds is pooled."""
    scored = draw(np.random.default_rng(0), 0.3, 1.2)
    assert scored.nats is not None and scored.units is not None
    spread = Spread(scored)
    losses, total, D = scored.losses, scored.units.sum(), 32
    together = np.zeros((2, 2))
    for size in range(3):
        for seed in range(SEEDS[size]):
            rest = scored.runs[size][:, seed] / losses[:, size] - 1
            together += np.outer(rest, rest)
    together /= 4  # 2 + 2 + 0
    size, g = 1, np.array([1.0, -1.0])
    c = g * losses[:, size]
    of_seed = float(c @ together @ c) / 3
    z = sum(g[v] * D * (scored.nats[size][v] - losses[v, size] * scored.units) / total for v in (0, 1))
    of_text = sum(float(z[:, d].mean()) ** 2 for d in range(D)) / (D * (D - 1))
    rests = [(z[s, d] - z[s].mean() - z[:, d].mean()) ** 2 for s in range(3) for d in range(D)]
    of_cell = sum(rests) / (3 * D * 2 * (D - 1))
    gradient = np.zeros((2, 3))
    gradient[:, size] = g
    variance, freedom = spread.of(spread.parts(gradient, gradient))
    assert variance == pytest.approx(max(of_seed + of_text - of_cell, of_seed, of_text))
    assert freedom == pytest.approx(variance**2 / (of_seed**2 / 4 + of_text**2 / (D - 1)))


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    rng = np.random.default_rng(0)
    rising = [1.3 + 0.1 * size + rng.normal(0, 0.01, (2, 3)) for size in range(3)]
    found = fit.speed_up(Scored(COMPUTE, rising), 0, 1)
    assert (found.low, found.high) == (-math.inf, math.inf) and math.isnan(found.value)
    noisy = [1.3 - 0.001 * size + rng.normal(0, 0.05, (2, 3)) for size in range(3)]  # the slope may be 0
    assert math.isinf(fit.speed_up(Scored(COMPUTE, noisy), 0, 1).high)
    single = Scored(COMPUTE, [truth(0.3, 1.2)[:, k, None] for k in range(3)])
    found = fit.difference(single, 0, 0, 1)
    assert (found.low, found.high) == (-math.inf, math.inf)
    alike = exact(0.3, 1.2)  # copies tell nothing of others
    assert math.isinf(fit.predict(alike, COMPUTE[:, 2] * 9, [1, 0], 1).high)
