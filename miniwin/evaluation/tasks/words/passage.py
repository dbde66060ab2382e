"""A question in words: the facts it is about, and the answers that follow from them.

A text is laid out so, whatever its length. Filler stands before, between and after the facts:

    <instruction>                       left out where there is none

    ...filler... fact ...filler... fact ...filler...

    <question>
    <lead> answer, answer               the lead ends without a space; the space is part of the answer
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

SEPARATOR = ", "  # between two answers


class Filler(Protocol):
    """Where pieces of text come from that have nothing to do with the question."""

    def pieces(self, random: Random) -> Iterator[str]:
        """Pieces without end, those of each call from another place."""


@dataclass(frozen=True, slots=True)
class Passage:
    """facts: in the order in which they stand in the text. They are all there, whatever the length.

    answers: what has to be written, in this order. Each is scored for itself.
    ordered: False where only the set of answers counts. Then they are listed in an order that follows from the facts.
    about: the number of the fact that the question is about; None where there are several.
    depth: where that fact has to stand in the context, from 0, the start, to 1; None is anywhere.
    filler: what stands around the facts; None is prose, of which the caller has some.
    joiner: what stands between two facts or pieces.
    """

    facts: tuple[str, ...]
    question: str
    answers: tuple[str, ...]
    lead: str = "Answer:"
    instruction: str | None = None
    ordered: bool = True
    about: int | None = None
    depth: float | None = None
    filler: Filler | None = None
    joiner: str = " "

    @property
    def key(self) -> bytes:
        """What makes this passage differ from others, whatever the filler: it decides the split."""
        return "\0".join((*self.facts, self.question, *self.answers)).encode()

    @property
    def bare(self) -> str:
        """The context without filler."""
        return self.joiner.join(self.facts)

    def asked(self, context: str) -> str:
        """The text up to the lead."""
        instruction = "" if self.instruction is None else f"{self.instruction}\n\n"
        return f"{instruction}{context}\n\n{self.question}\n"

    @property
    def answer(self) -> str:
        """What follows the lead."""
        return f" {SEPARATOR.join(self.answers)}"

    def spans(self, start: int) -> tuple[tuple[int, int], ...]:
        """(start, end) of each answer, its space included, where the text of all answers starts at `start`."""
        found = []
        for answer in self.answers:
            end = start + 1 + len(answer)
            found.append((start, end))
            start = end + len(SEPARATOR) - 1  # the space of the separator belongs to the next answer
        return tuple(found)
