"""What is drawn is drawn evenly: answers, depths, and arrangements of records.

All draws are seeded: a test passes or fails for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from random import Random

import pytest
from task_cheaters import examples

from miniwin.evaluation.tasks import (
    TASKS,
    Compression,
    Copy,
    Counting,
    FuzzyRecall,
    Induction,
    LastWrite,
    Memorisation,
    MultiHop,
    Needle,
    PositionModulo,
    Recall,
    SelectiveCopying,
    SeveralNeedles,
    SortedOrder,
    Task,
    WhichFirst,
    draw,
)
from miniwin.evaluation.tasks.first_write import FirstWrite
from miniwin.evaluation.tasks.placing import placed

CAPITALS, LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"


def is_uniform(drawn: Sequence[Hashable], kinds: int) -> bool:
    """Pearson's chi-square: at most five standard deviations above its mean, the number of kinds less one."""
    counts = Counter(drawn)
    assert len(counts) <= kinds
    expected = len(drawn) / kinds
    assert expected >= 5, "too few draws"
    chi_square = sum((count - expected) ** 2 for count in counts.values()) / expected
    chi_square += (kinds - len(counts)) * expected
    return chi_square <= kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5


def test_uneven_draws_are_found_out() -> None:
    random = Random(0)
    assert is_uniform([random.randrange(10) for _ in range(2000)], 10)
    assert not is_uniform([random.randrange(10) for _ in range(2000)], 11)
    assert not is_uniform([min(random.randrange(10), random.randrange(40)) for _ in range(2000)], 10)


@pytest.mark.parametrize(
    ("task", "possible"),
    [
        (Recall(), CAPITALS),
        (LastWrite(), CAPITALS),
        (FirstWrite(), CAPITALS),
        (MultiHop(), CAPITALS),
        (SelectiveCopying(), CAPITALS[:14]),
        (Copy(), LETTERS),
        (Copy(num_letters=3), LETTERS[:3]),
        (Induction(), LETTERS),
        (Induction(distance=17), LETTERS),
        (SortedOrder(), LETTERS),
        (SortedOrder(num_marks=3, num_queries=3), LETTERS),
        (Counting(), b"0123456789"),
        (Counting(num_marks=3, max_count=4), b"01234"),
        (PositionModulo(), b"0123"),
        (PositionModulo(modulo=7), b"0123456"),
        (Compression(), CAPITALS[:16]),
        (Needle(), b"0123456789"),
        (SeveralNeedles(), b"0123456789"),
    ],
    ids=lambda value: value.model_dump_json() if isinstance(value, Task) else "",
)
def test_answers_are_equally_likely(task: Task, possible: bytes) -> None:
    drawn = examples(task, task.shortest + 30, 1500, seed=3)
    found = [byte for one in drawn for start, end in one.answers for byte in one.text[start:end]]
    assert set(found) <= set(possible) and is_uniform(found, len(possible))


def test_the_mark_that_came_first_is_named_first_half_of_the_time() -> None:
    drawn = examples(WhichFirst(), 60, 1500, seed=3)
    assert is_uniform([one.text[start] == one.text[start - 4] for one in drawn for start, _ in one.answers], 2)


def test_fuzzy_values_have_each_size_and_each_letter_equally_often() -> None:
    task = FuzzyRecall(num_pairs=26, num_queries=26)  # the hardest to draw evenly: all are different
    drawn = examples(task, task.shortest, 12000, seed=3)
    values = [one.text[start : end - 1] for one in drawn for start, end in one.answers]
    assert is_uniform([len(value) for value in values], 3)
    assert is_uniform([letter for value in values for letter in value], 26)


def test_facts_to_memorise_have_each_value_equally_often() -> None:
    facts = Memorisation(num_facts=60).facts
    assert len(facts) == 60 and sorted(Counter(facts.values()).values()) == [2] * 18 + [3] * 8
    assert facts != Memorisation(num_facts=60, seed=1).facts


def test_facts_to_memorise_are_the_same_in_all_splits() -> None:
    for split in ("train", "valid", "test"):
        for index in range(20):
            example = draw(Memorisation(), 90, seed=index, index=index, split=split)
            keys = [example.text[start - 3 : start - 1] for start, _ in example.answers]
            values = [example.text[start] for start, _ in example.answers]
            assert values == [Memorisation().facts[key] for key in keys] and len(set(keys)) == 4


@pytest.mark.parametrize(
    "task",
    [
        Needle(),
        SeveralNeedles(num_queries=1),
        Induction(),
        PositionModulo(),
        Recall(num_queries=1),
        FuzzyRecall(num_queries=1),
    ],
    ids=lambda task: task.type,
)
def test_depths_are_even(task: Task) -> None:
    depths = [one.depth for one in examples(task, 2000, 800, seed=3)]
    assert all(depth is not None and 0 <= depth <= 1 for depth in depths)
    assert is_uniform([min(7, int(8 * depth)) for depth in depths if depth is not None], 8)


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_needle_lies_where_it_is_asked_to(depth: float) -> None:
    task = Needle(depth=depth)
    for length in (task.shortest, 150, 1000):
        example = draw(task, length, seed=0, index=0, split="valid")
        start = example.text.index(b"\n#")
        assert example.depth == start / (length - 2 * task.record)
        assert start == round(depth * (length - 2 * task.record))


@pytest.mark.parametrize("distance", [2, 3, 7, 90])
def test_a_bigram_lies_at_its_distance(distance: int) -> None:
    task = Induction(distance=distance, num_bigrams=5)
    for length in (task.shortest, task.shortest + 1, 200):
        for index in range(20):
            text = draw(task, length, seed=0, index=index, split="train").text
            assert text.index(text[-2:-1]) == length - 2 - distance
            assert sum(byte in CAPITALS for byte in text) == 6


def test_a_depth_is_where_the_answer_lies() -> None:
    for index in range(30):
        example = draw(SeveralNeedles(num_queries=1), 300, seed=0, index=index, split="train")
        start = example.text.index(example.text[-8:])
        assert example.depth == start / (300 - 2 * 8)


def test_all_arrangements_of_records_are_equally_likely() -> None:
    random = Random(0)
    drawn = [tuple(placed(random, 9, [b"AA", b"B", b"CCC"])[1]) for _ in range(2000)]
    assert is_uniform(drawn, 20)  # three records in three free bytes: 6 choose 3


def test_all_arrangements_around_a_distance_are_equally_likely() -> None:
    random = Random(0)
    task = Induction(distance=5, num_bigrams=3)
    texts = [task.example(random, 13).text for _ in range(3000)]
    # Four bytes before the bigram at 6, and three behind: the two others are both before (6 ways, 2 bytes free), or one
    # is behind.
    arrangements = [tuple(at for at, byte in enumerate(text) if byte in CAPITALS) for text in texts]
    assert is_uniform(arrangements, 6 + 5 * 2)


def test_every_kind_of_count_may_be_nothing() -> None:
    drawn = examples(Counting(), 60, 300, seed=3)
    assert any(example.text[example.answers[0][0]] == ord("0") for example in drawn)
    assert all(TASKS["counting"]().shortest <= len(example.text) for example in drawn)
