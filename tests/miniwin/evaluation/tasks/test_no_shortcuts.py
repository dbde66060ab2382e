"""No cheater gets further in a task than the task says: chance, or `blind` for one that knows a part.

All draws are seeded: a test passes or fails for good. Shares may be four standard errors away from what is said.
"""

from __future__ import annotations

from functools import cache

import pytest
from task_cheaters import (
    BLIND,
    CANDIDATES,
    Asked,
    after_the_last_bytes,
    after_the_last_letter,
    all_marks_together,
    any_write,
    as_many_questions_before,
    bigrams,
    commonest_left,
    examples,
    first,
    last,
    last_letter_of_the_key,
    mark_behind,
    newest_write_or_any,
    not_the_newest_mark,
    place_in_its_level,
    questions,
    share,
)

from miniwin.evaluation.tasks import TASKS, Counting, LastWrite, MultiHop, SortedOrder, Task, WhichFirst
from miniwin.evaluation.tasks.words import TextTask

ANSWERS = 800
# The task is what the statistic does.
SOLVED_BY_BIGRAMS = ("induction", "needle")
ON_BYTES = [pytest.param(cls(), id=cls.model_fields["type"].default) for cls in TASKS if not issubclass(cls, TextTask)]


@cache
def asked(task: Task, seed: int = 7) -> list[tuple[Asked, bytes]]:
    return questions(examples(task, task.shortest + 60, ANSWERS, seed))


def error(task: Task) -> float:
    """Four standard errors of a share of `blind`."""
    return 4 * (task.blind * (1 - task.blind) / ANSWERS) ** 0.5


@pytest.mark.parametrize("task", ON_BYTES)
def test_statistics_of_training_tell_nothing(task: Task) -> None:
    for number in range(4):
        found = share(asked(task), after_the_last_bytes(asked(task, seed=8), number))
        if task.type == "memorisation" and number > 1:
            assert found > 0.2  # half a key, or a key: a fact
        else:
            assert found <= task.blind + error(task), number


@pytest.mark.parametrize("task", ON_BYTES)
def test_bigrams_of_the_text_tell_no_more_than_blind(task: Task) -> None:
    if task.type in SOLVED_BY_BIGRAMS:
        assert share(asked(task), bigrams) > 0.4
    elif task.type != "copy":  # half of the way: see below
        assert share(asked(task), bigrams) <= task.blind + error(task)


@pytest.mark.parametrize("type_", sorted(CANDIDATES))
def test_where_a_value_stands_tells_no_more_than_blind(type_: str) -> None:
    task, candidates = TASKS[type_](), CANDIDATES[type_]
    assert isinstance(task, Task)
    for cheater in (first(candidates), last(candidates), commonest_left(candidates)):
        assert share(asked(task), cheater) <= task.blind + error(task)
    if type_ not in ("copy", "selective-copying"):  # it is what they are about
        assert share(asked(task), as_many_questions_before(candidates)) <= task.blind + error(task)


def test_the_order_of_records_tells_nothing_about_chains_or_the_alphabet() -> None:
    assert share(asked(MultiHop()), place_in_its_level) <= MultiHop().blind + error(MultiHop())
    assert share(asked(SortedOrder()), mark_behind) <= SortedOrder().blind + error(SortedOrder())


@pytest.mark.parametrize("type_", sorted(BLIND))
def test_blind_is_what_a_part_of_the_task_gives(type_: str) -> None:
    task = TASKS[type_]()
    assert isinstance(task, Task)
    assert share(asked(task), BLIND[type_]) == pytest.approx(task.blind, abs=error(task))


def test_every_task_with_a_blind_share_has_its_cheater() -> None:
    tasks = [parameter.values[0] for parameter in ON_BYTES]
    assert {task.type for task in tasks if task.blind != task.chance} == set(BLIND)
    assert all(task.blind >= task.chance for task in tasks)


@pytest.mark.parametrize("type_", ["last-write", "first-write"])
def test_a_model_that_ignores_order_is_right_once_in_writes(type_: str) -> None:
    task = TASKS[type_]()
    assert isinstance(task, Task)
    assert share(asked(task), any_write) == pytest.approx(1 / 3, abs=error(task))


def test_to_know_the_newest_write_gives_two_thirds() -> None:
    """As the docstring of writes.py says."""
    assert share(asked(LastWrite()), newest_write_or_any) == pytest.approx(2 / 3, abs=error(LastWrite()))


@pytest.mark.parametrize("num_marks", [3, 4, 6])
def test_blind_in_which_first_is_what_the_newest_mark_gives(num_marks: int) -> None:
    task = WhichFirst(num_marks=num_marks, num_queries=1)
    assert task.blind == pytest.approx(1 / 2 + 1 / num_marks)
    assert share(asked(task), not_the_newest_mark) == pytest.approx(task.blind, abs=error(task))


def test_of_two_marks_the_newest_is_the_whole_task() -> None:
    task = WhichFirst(num_marks=2, num_queries=1)
    assert share(asked(task), not_the_newest_mark) == 1 and task.blind == task.chance


def test_to_count_all_marks_together_is_no_better_than_to_see_one() -> None:
    """As the docstring of counting.py says."""
    assert share(asked(Counting()), all_marks_together) == pytest.approx(0.19, abs=error(Counting()))


@pytest.mark.parametrize(("type_", "expected"), [("recall", 0.77), ("fuzzy-recall", 0.47)])
def test_the_last_letter_of_a_key_is_not_enough(type_: str, expected: float) -> None:
    """As the docstrings of the tasks say."""
    task = TASKS[type_]()
    assert isinstance(task, Task)
    assert share(asked(task), last_letter_of_the_key) == pytest.approx(expected, abs=error(task))


@pytest.mark.parametrize(("type_", "expected"), [("copy", 0.79), ("selective-copying", 0.68)])
def test_to_look_one_letter_back_is_not_enough_to_copy(type_: str, expected: float) -> None:
    """As the docstrings of the tasks say."""
    task = TASKS[type_]()
    assert isinstance(task, Task)
    found = share(asked(task), after_the_last_letter(CANDIDATES[type_]))
    assert found == pytest.approx(expected, abs=error(task))
