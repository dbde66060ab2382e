"""Ranks and their correlation."""

from __future__ import annotations

import numpy as np
import pytest

from miniwin.evaluation.ranks import rank_correlation, ranks


def test_equal_ranks_are_shared_and_what_is_alike_has_no_order() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    found = rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert found is not None and found.value == pytest.approx(-1)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    tied = rank_correlation([1, 2, 2, 3, 4, 5], [1, 3, 2, 3, 5, 4])
    assert tied is not None and tied.value == pytest.approx(0.8971, abs=1e-4)  # by hand: ranks, then Pearson


def test_ranks_and_correlations_are_those_of_scipy() -> None:
    from scipy import stats  # takes longer to import than the tests to run: only where they do

    random = np.random.default_rng(0)
    for size in (2, 3, 7, 40):
        x, y = random.integers(6, size=size), random.normal(size=size)
        x[0] = 9
        assert ranks(x).tolist() == stats.rankdata(x).tolist()
        found = rank_correlation(x, y)
        assert found is not None and found.value == pytest.approx(stats.spearmanr(x, y).statistic) and found.n == size
    assert rank_correlation([], []) is None and rank_correlation([1.0], [2.0]) is None


def test_the_interval_holds_the_true_correlation() -> None:
    """Of two normal variables; that of their ranks is 6 / pi * asin(r / 2)."""
    random, r, held = np.random.default_rng(1), 0.6, 0
    for _ in range(400):
        x = random.normal(size=60)
        found = rank_correlation(x, r * x + np.sqrt(1 - r * r) * random.normal(size=60))
        assert found is not None
        held += found.low <= 6 / np.pi * np.arcsin(r / 2) <= found.high
    assert 0.92 <= held / 400 <= 0.98
    few = rank_correlation([1, 2, 3, 4], [1, 3, 2, 4])
    assert few is not None and (few.low, few.high) == (-1.0, 1.0)
