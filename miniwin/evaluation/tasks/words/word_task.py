"""The base of a task that can be asked in words, and of one that is asked in words only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from random import Random

from miniwin.evaluation.tasks.drawing import TRIES, split_of
from miniwin.evaluation.tasks.task import Example, Task
from miniwin.evaluation.tasks.words.layout import lay
from miniwin.evaluation.tasks.words.passage import Passage
from miniwin.evaluation.tasks.words.prose import BuiltIn

PROBES = 256  # passages that are looked at to say how long one is


class WordTask(Task):
    """A task with a form in words, for models with any tokenizer."""

    @property
    @abstractmethod
    def words_chance(self) -> float:
        """The share of answers that are right in words when one of the possible answers is drawn without reading."""

    @abstractmethod
    def words(self, random: Random) -> Passage:
        """A question in words, with the facts that it is about."""


class TextTask(WordTask):
    """A task without another form: its bytes are the text in words, with built-in filler.

    An example has exactly `length` bytes, so the filler begins in the middle of a piece.
    """

    @property
    def chance(self) -> float:
        return self.words_chance

    @property
    def shortest(self) -> int:
        """As long as the longest of some passages; one that is longer is drawn again."""
        return _longest(self)

    def example(self, random: Random, length: int) -> Example:
        for _ in range(TRIES):
            example = self.drawn(random, length, lambda key: True)
            if example is not None:
                return example
        raise AssertionError(f"task {self.type} has no passage of {length} bytes")

    def drawn(self, random: Random, length: int, wanted: Callable[[bytes], bool]) -> Example | None:
        """Wanted or not by its passage. So passages are in the same splits as in words."""
        passage = self.words(random)
        return _exactly(passage, random, length) if wanted(passage.key) and _size(passage) <= length else None


def draw_passage(task: WordTask, *, seed: int, index: int, split: str) -> Passage:
    """Passage number `index` of a split. It is the same at every length and for every tokenizer."""
    random = Random(f"{task.said} in words {seed} {index} {split}")
    for _ in range(TRIES):
        passage = task.words(random)
        if split_of(passage.key) == split:
            return passage
    raise AssertionError(f"task {task.type} has no {split} passage")


def _whole(passage: Passage, context: str) -> str:
    return passage.asked(context) + passage.lead + passage.answer


def _size(passage: Passage) -> int:
    return len(_whole(passage, passage.bare).encode())


@cache
def _longest(task: TextTask) -> int:
    random = Random(task.said)
    return max(_size(task.words(random)) for _ in range(PROBES))


def _exactly(passage: Passage, random: Random, length: int) -> Example:
    layout = lay(
        passage,
        random,
        BuiltIn(),
        length,
        lambda texts: [len(text.encode()) for text in texts],
        lambda context: _whole(passage, context),
    )
    missing = length - len(_whole(passage, layout.context).encode())
    more, source = "", (passage.filler or BuiltIn()).pieces(random)
    while len(more) < missing:
        more = next(source) + passage.joiner + more
    text = _whole(passage, more[len(more) - missing :] + layout.context)
    start = len(text) - len(passage.answer)
    assert text.isascii() and len(text) == length
    return Example(text.encode(), passage.spans(start), layout.depth)
