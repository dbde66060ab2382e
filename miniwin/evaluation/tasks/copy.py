"""Copy: the beginning of the text is repeated at its end, letter by letter, after filler.

    >qwfpgjluyb             the first `num_tokens` bytes after the mark: letters, each drawn by itself
    ...filler...            random lower-case letters and spaces
    >qwfpgjluyb             at the very end the mark and the same letters again; each is an answer of its own

Copying as in "Repeat After Me" (arXiv:2402.01032), with filler between, so that the copy is far from its source. Each
answer is predicted with the right ones before it in view, so the score is a share of letters, not of whole copies.
Letters repeat: what followed a letter once may not be what follows it now, the less so the fewer letters there are. By
default, looking one letter back is right 0.79 of the time, where the beginning is told from the filler.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import MOST_ALIKE, commonest_of_the_rest
from miniwin.evaluation.tasks.placing import LETTERS, SPARE, filler
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task


@TASKS.register
class Copy(Task):
    """num_letters: the copied letters are of the first so many of the alphabet. Chance is a guess among these."""

    type: Literal["copy"] = "copy"
    num_tokens: Annotated[PositiveInt, Field(le=MOST_ALIKE)] = 16
    num_letters: Annotated[PositiveInt, Field(ge=2, le=len(LETTERS))] = len(LETTERS)

    @property
    def chance(self) -> float:
        return 1 / self.num_letters

    @property
    def blind(self) -> float:
        """Of a model that knows which letters are to be copied and which are left, and not in which order."""
        return commonest_of_the_rest(self.num_tokens, self.num_tokens, self.num_letters)

    @property
    def shortest(self) -> int:
        return 2 * self.num_tokens + 4 + SPARE  # `>`, letters, newline, filler, newline, `>`, letters

    def example(self, random: Random, length: int) -> Example:
        stretch = bytes(random.choices(LETTERS[: self.num_letters], k=self.num_tokens))
        between = filler(random, length - 2 * self.num_tokens - 4)
        text = b">%b\n%b\n>%b" % (stretch, between, stretch)
        return Example(text, tuple((at, at + 1) for at in range(length - self.num_tokens, length)))
