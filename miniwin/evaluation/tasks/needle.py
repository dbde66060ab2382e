"""Needle: a passkey of several digits lies at some depth of the context, and is asked for at the end.

    ...filler...            random lower-case letters and spaces
    #48213...filler...      once, at `depth` of the context: the passkey
    #48213                  at the very end the same again: the question, `#`, and the passkey

The passkey of Landmark Attention (arXiv:2305.16300), which RULER (arXiv:2404.06654) counts among its
needles in a haystack. Nothing has to be told apart: there is one mark `#` and one number. What is tested is whether a
model reaches that far; several-needles asks which one.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import Fraction, PositiveInt
from miniwin.evaluation.tasks.placing import SPARE, ends, filler, number
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask


@TASKS.register
class Needle(WordTask):
    """depth: where the passkey lies, from 0, the start of the context, to 1, right before the question; null is
    anywhere. Chance is that of a guess among all numbers of so many digits."""

    type: Literal["needle"] = "needle"
    digits: Annotated[PositiveInt, Field(le=16)] = 5
    depth: Fraction | None = None

    @property
    def record(self) -> int:
        """Bytes: newline, `#`, digits."""
        return 2 + self.digits

    @property
    def chance(self) -> float:
        return 10.0**-self.digits

    @property
    def shortest(self) -> int:
        return 2 * self.record + SPARE

    def example(self, random: Random, length: int) -> Example:
        record = b"\n#" + number(random, self.digits)
        free = length - 2 * self.record
        start = random.randint(0, free) if self.depth is None else round(self.depth * free)
        text = filler(random, start) + record + filler(random, free - start) + record
        return Example(text, ends(0, [length], self.digits), start / free)

    @property
    def words_chance(self) -> float:
        return self.chance

    def words(self, random: Random) -> Passage:
        passkey = number(random, self.digits).decode()
        return Passage(
            facts=(f"The passkey is {passkey}. Remember it.",),
            question="Question: What is the passkey?",
            answers=(passkey,),
            about=0,
            depth=self.depth,
        )
