"""Sequences of letters under rules: counted, ranked and mended, beside a plain enumeration of all words."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniwin.specs.sequences import Sequences, Word

limits = st.dictionaries(st.integers(0, 2), st.integers(0, 4), max_size=2)
rules = st.tuples(st.integers(1, 3), limits, limits, st.sets(st.integers(0, 2)))


def keeps(word: Word, least: dict[int, int], most: dict[int, int], apart: set[int]) -> bool:
    """The rules as they are said."""
    counts = Counter(word)
    return (
        all(counts[letter] >= n for letter, n in least.items())
        and all(counts[letter] <= n for letter, n in most.items())
        and not any(a == b and a in apart for a, b in itertools.pairwise(word))
    )


@settings(max_examples=150, deadline=None)
@given(rules, st.integers(1, 5))
def test_all_sequences_are_those_of_an_enumeration(
    rule: tuple[int, dict[int, int], dict[int, int], set[int]], length: int
) -> None:
    letters, least, most, apart = rule
    found = Sequences(letters, least, most, sorted(apart))
    expected = {word for word in itertools.product(range(letters), repeat=length) if keeps(word, least, most, apart)}
    words = list(found.all(length))
    assert set(words) == expected and len(words) == len(expected) == found.count(length)
    assert all(found.allows(word) is (word in expected) for word in itertools.product(range(letters), repeat=length))
    assert [found.rank(word) for word in words] == list(range(len(words)))
    assert [found.unrank(length, rank) for rank in range(len(words))] == words
    if not words:
        return
    random = Random(length)
    for _ in range(5):
        wanted = [random.choice([None, *range(letters)]) for _ in range(length)]
        costs = {word: sum(w is not None and w != a for a, w in zip(word, wanted, strict=True)) for word in words}
        assert costs[found.nearest(wanted, random)] == min(costs.values())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_neighbours_of_one_size_differ_by_a_swap(size: int) -> None:
    words = list(Sequences(2, {1: size}, {1: size}).all(7))
    assert all(sum(a != b for a, b in zip(*pair, strict=True)) == 2 for pair in itertools.pairwise(words))


def test_neighbours_differ_less_than_in_the_order_of_a_dictionary() -> None:
    for rule in [(3, {0: 1}, {1: 2}, [1]), (4, {3: 1}, {1: 1, 2: 2}, [0]), (2, {1: 2}, {1: 4}, [])]:
        words = list(Sequences(*rule).all(6))  # type: ignore[arg-type]
        ours, plain = (
            sum(a != b for pair in itertools.pairwise(order) for a, b in zip(*pair, strict=True))
            for order in (words, sorted(words))
        )
        assert ours < 0.8 * plain


def test_of_several_nearest_sequences_each_is_drawn_as_often() -> None:
    found, random = Sequences(2, {1: 1}, {1: 1}), Random(0)
    drawn = Counter(found.nearest([1, 1, 1, 0], random) for _ in range(3000))
    assert set(drawn) == {(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)}
    assert min(drawn.values()) > 900


def test_what_is_too_long_to_list_has_ranks() -> None:
    found = Sequences(2, {1: 60}, {1: 64})
    rank = found.count(200) // 3
    assert found.count(200) > 10**50 and found.rank(found.unrank(200, rank)) == rank
