"""What holds for every task: an oracle is always right, a guesser as often as chance says, and splits are disjoint.

MINIWIN_TEST_SLOW asks for more examples of each split (200 in place of 80, for each of the tasks).
"""

from __future__ import annotations

import os
from random import Random

import pytest
from task_answers import ANSWERS

from miniwin.evaluation.tasks import SPLITS, TASKS, Task, draw
from miniwin.evaluation.tasks.words import TextTask
from miniwin.specs import UserError

EVERY = [pytest.param(cls(), id=cls.model_fields["type"].default) for cls in TASKS]  # with its default parameters

# The bytes of a task that is asked in words only are its text in words: test_every_word_task.py counts its guesses.
OWN = [one for one in EVERY if not isinstance(one.values[0], TextTask)]
PER_SEED = 50 if os.environ.get("MINIWIN_TEST_SLOW") else 20


def lengths(task: Task) -> list[int]:
    return [task.shortest, task.shortest + 1, 4 * task.shortest + 3, 5000]


def test_every_task_has_an_oracle_and_a_guesser() -> None:
    assert sorted(ANSWERS) == TASKS.names()


@pytest.mark.parametrize("task", EVERY)
def test_an_oracle_answers_everything(task: Task) -> None:
    for length in lengths(task):
        for index in range(20):
            example = draw(task, length, seed=1, index=index, split="test")
            assert len(example.text) == length and example.text.isascii()
            assert example.answers and all(0 < start < end <= length for start, end in example.answers)
            for start, end in example.answers:
                assert ANSWERS[task.type].oracle(example.text[:start]) == example.text[start:end], example.text


@pytest.mark.parametrize("task", OWN)
def test_a_guesser_is_right_as_often_as_chance_says(task: Task) -> None:
    random, right, asked = Random(0), 0, 0
    index = 0
    while asked < 4000:
        example = draw(task, task.shortest + 20, seed=2, index=index, split="train")
        index += 1
        for start, end in example.answers:
            right += ANSWERS[task.type].guess(random, example.text[:start]) == example.text[start:end]
            asked += 1
    # Four standard errors: the draws are seeded, so this passes or fails for good.
    assert abs(right / asked - task.chance) <= 4 * (task.chance * (1 - task.chance) / asked) ** 0.5


@pytest.mark.parametrize("task", EVERY)
def test_no_example_is_in_two_splits(task: Task) -> None:
    found = {
        split: {
            draw(task, task.shortest, seed=seed, index=index, split=split).text
            for seed in range(4)
            for index in range(PER_SEED)
        }
        for split in SPLITS
    }
    assert all(len(texts) > 1 for texts in found.values())
    for one, other in [("train", "valid"), ("train", "test"), ("valid", "test")]:
        assert not found[one] & found[other]


@pytest.mark.parametrize("task", EVERY)
def test_examples_are_a_function_of_seed_index_and_length(task: Task) -> None:
    def text(seed: int, index: int, length: int) -> bytes:
        return draw(task, length, seed=seed, index=index, split="train").text

    size = task.shortest + 40
    assert text(1, 2, size) == text(1, 2, size)
    assert len({text(1, 2, size), text(2, 2, size), text(1, 3, size)}) == 3


@pytest.mark.parametrize("task", EVERY)
def test_a_length_without_room_is_refused(task: Task) -> None:
    with pytest.raises(UserError, match=f"task {task.type}: .* at least {task.shortest}"):
        draw(task, task.shortest - 1, seed=0, index=0, split="test")
