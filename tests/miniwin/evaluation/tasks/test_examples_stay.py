"""The examples of a task are those that it has always had: stored results and training data name them by number."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import pytest
from word_tokenizers import model

from miniwin.blocks.spec import PositiveInt, facts
from miniwin.evaluation.tasks import SPLITS, TASKS, Recall, Task, draw
from miniwin.evaluation.tasks.words import WordTask, draw_passage
from miniwin.evaluation.words import ask

# Of each task with its default fields, a hash of some examples: bytes, and in words where it has them.
FOUND: dict[str, tuple[str, ...]] = {
    "babilong-qa1": ("30792852b143b093", "361ff74f0d5703bd"),
    "babilong-qa2": ("8555748009a5e39c", "5a589605027186e4"),
    "babilong-qa3": ("dbcd75d6ad49ca3c", "b602997d8ab79a81"),
    "babilong-qa4": ("91a067aa52c844a2", "21645a19d28f3e53"),
    "babilong-qa5": ("23a8c1f0291c3f39", "bc94a8efbb539866"),
    "compression": ("dbbe3d1ed5bdb59a",),
    "copy": ("41e02c4c1383154e",),
    "counting": ("b86fb1412d4788d6", "1acccc27bb7c3950"),
    "first-write": ("e0175c571a4533d5", "8c3df6192d9e07ef"),
    "fuzzy-recall": ("92fc7fb02dcd5b50",),
    "induction": ("610afeb3b557e551",),
    "last-write": ("eee6616d0be2c82c", "a3db19b34d29e0a2"),
    "memorisation": ("bf3b19959bd8faf0",),
    "multi-hop": ("e2dc7bfb4a72b9f8", "1c47e01a7105ad6a"),
    "needle": ("2655d79ec8d9cd60", "2764512d788c4691"),
    "position-modulo": ("edd73e0e55325528",),
    "recall": ("22883f47eaaf5f71", "c99ab62f2c7e6cb8"),
    "ruler-cwe": ("e4c1922dd8c4e961", "b392599a85f2ce45"),
    "ruler-fwe": ("16a5c5afde304c11", "f65f741fff0e6d58"),
    "ruler-niah": ("967762a809272b1a", "49bbc1f212834d27"),
    "ruler-vt": ("2f8ff5f9e15c1d60", "91d596a3362921bc"),
    "scattered-facts": ("b77710da57904f87", "39e993c98f4c1b9e"),
    "selective-copying": ("6cf51a06103fd90c",),
    "several-needles": ("3cb02e8c3c053d8d", "a179f878bf64e724"),
    "sorted-order": ("2043dc57fd7cc830",),
    "which-first": ("e5c9758f7b60099c", "61f364a795c82690"),
}
OF_THIS_PYTHON = {name for name in TASKS.names() if TASKS[name].of_this_python}


def digest(texts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def examples(task: Task) -> list[bytes]:
    drawn = [draw(task, task.shortest + 40, seed=1, index=n, split=split) for split in SPLITS for n in range(2)]
    return [repr((one.text, one.answers, one.depth)).encode() for one in drawn]


def passages(task: WordTask) -> list[bytes]:
    bare = [draw_passage(task, seed=1, index=2, split=split) for split in SPLITS]
    laid = ask(model("byte"), task, 6000, examples=2, seed=1, split="test")
    return [one.key for one in bare] + [one.text.encode() for one in laid]


def hashes(task: Task) -> tuple[str, ...]:
    return (digest(examples(task)), *([digest(passages(task))] if isinstance(task, WordTask) else []))


@pytest.mark.parametrize("name", sorted(set(TASKS.names()) - OF_THIS_PYTHON))
def test_the_examples_of_a_task_stay(name: str) -> None:
    assert name in FOUND, f"a new task: add the hashes of its first examples, {hashes(TASKS[name]())}"
    assert hashes(TASKS[name]()) == FOUND[name]


def test_examples_that_change_with_python_have_the_seeds_of_ever() -> None:
    assert {"signature"} == OF_THIS_PYTHON
    assert TASKS["signature"]().said == '{"type":"signature","depth":null}'


class Older(Recall):
    """Recall, before any field came."""


class Later(Recall):
    """Recall with two fields that came later."""

    LATER: ClassVar[frozenset[str]] = frozenset({"zeal", "accent"})

    zeal: PositiveInt = 1
    accent: str | None = None


class Reordered(Recall):
    """The same two fields in the other order."""

    LATER: ClassVar[frozenset[str]] = frozenset({"zeal", "accent"})

    accent: str | None = None
    zeal: PositiveInt = 1


def test_a_later_field_changes_no_example_while_it_has_its_default() -> None:
    assert hashes(Later()) == hashes(Reordered()) == hashes(Older()) == FOUND["recall"]
    assert Later(num_pairs=8).said == Older(num_pairs=8).said


def test_a_later_field_with_another_value_gives_other_examples_in_whatever_order_it_stands() -> None:
    one, other = Later(zeal=2, accent="é"), Reordered(zeal=2, accent="é")
    assert one.said == other.said
    assert len({one.said, Later(zeal=2).said, Later(accent="é").said, Later().said}) == 4
    assert hashes(one) == hashes(other) != hashes(Later())


def test_a_later_field_is_written_only_where_it_differs() -> None:
    """Fingerprints of training data, records of runs and stored results are made of what is written."""
    assert Later().model_dump(mode="json") == facts(Later()) == Older().model_dump(mode="json")
    assert Later(zeal=2).model_dump(mode="json") == {**Older().model_dump(mode="json"), "zeal": 2}
