"""Shares of those who know what is left to answer, against what is counted out."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product
from random import Random

import numpy as np
import pytest

from miniwin.evaluation.tasks.eliminating import MOST_ALIKE, commonest_of_the_rest, one_of_the_rest


@pytest.mark.parametrize(("total", "asked"), [(1, 1), (4, 2), (5, 5)])
def test_different_answers(total: int, asked: int) -> None:
    right = sum(order[before] == min(order[before:]) for order in permutations(range(total)) for before in range(asked))
    assert one_of_the_rest(total, asked) == pytest.approx(right / asked / len(list(permutations(range(total)))))


@pytest.mark.parametrize(("total", "asked", "kinds"), [(1, 1, 26), (3, 3, 2), (4, 2, 3), (5, 5, 4), (6, 1, 3)])
def test_answers_that_may_be_alike_are_counted_out(total: int, asked: int, kinds: int) -> None:
    shares = [
        max(Counter(answers[before:]).values()) / (total - before)
        for answers in product(range(kinds), repeat=total)
        for before in range(asked)
    ]
    assert commonest_of_the_rest(total, asked, kinds) == pytest.approx(np.mean(shares), rel=1e-9)


@pytest.mark.parametrize(("total", "kinds"), [(16, 26), (200, 26), (MOST_ALIKE, 26), (MOST_ALIKE, 2), (676, 26)])
def test_many_answers_that_may_be_alike(total: int, kinds: int) -> None:
    random = Random(0)
    found = [max(Counter(random.choices(range(kinds), k=total)).values()) / total for _ in range(500)]
    error = np.std(found) / len(found) ** 0.5
    assert commonest_of_the_rest(total, 1, kinds) == pytest.approx(np.mean(found), abs=4 * float(error))
