"""What a task has to say: its parameters, its chance level, and an example of any length.

A task is a spec: its fields are its parameters, and YAML names it by `type`. Its examples are bytes of ASCII, one token
each for a byte-level model. Every random choice comes from the generator that `example` is given.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from miniwin.blocks.spec import Grown, UserError


@dataclass(frozen=True, slots=True)
class Example:
    """text: context, questions and answers, in the order in which a model reads them.

    answers: (start, end) of each answer in the text, in order. A model has to predict these bytes from all before them.
    depth: where in the context that lies which the question is about, from 0, the start, to 1; None where it is in
    several places.
    """

    text: bytes
    answers: tuple[tuple[int, int], ...]
    depth: float | None = None


class Task(Grown):
    """The base of every task. type: the name that YAML uses.

    A field that a task gets later stands in `LATER`, and its default means what the task did without it. Then no
    example changes, and stored results and training data stay what they are. `LATER` of a subclass names those of its
    base, too.
    """

    of_this_python: ClassVar[bool] = False  # whether the examples differ from one version of Python to the next

    type: str

    @property
    @abstractmethod
    def chance(self) -> float:
        """The share of answers that are right when one of the possible answers is drawn without reading the context."""

    @property
    def blind(self) -> float:
        """The share right of a model that does a part of the task: it knows what may be answered, say, and not in
        which order it stood. The task's docstring says which part. Chance where no part helps."""
        return self.chance

    @property
    @abstractmethod
    def shortest(self) -> int:
        """The fewest bytes that an example may have."""

    @abstractmethod
    def example(self, random: Random, length: int) -> Example:
        """An example of exactly `length` bytes; `length` is at least `shortest`."""

    @property
    def said(self) -> str:
        """The task's fields, for the seeds of its examples: later fields come last, by name, and only where they differ
        from their default. The order of the others is as old as the examples are."""
        later = sorted(name for name in self.LATER if name in self.model_dump())
        return self.model_dump_json(exclude=set(self.LATER)) + "".join(
            self.model_dump_json(include={name}) for name in later
        )

    def drawn(self, random: Random, length: int, wanted: Callable[[bytes], bool]) -> Example | None:
        """An example, or None if what it is about is not wanted: usually its text."""
        example = self.example(random, length)
        return example if wanted(example.text) else None

    def check_length(self, length: int) -> None:
        """Raise UserError if no example has this length."""
        if length < self.shortest:
            raise UserError(
                f"task {self.type}: an example takes at least {self.shortest} bytes, and length is {length}; make the "
                f"length at least {self.shortest}, or the example smaller by the task's fields"
            )
