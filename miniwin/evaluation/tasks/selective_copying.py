"""Selective copying: some tokens lie scattered in filler; at the end they are repeated, in their order.

    ...T...B..T...K...      lower-case letters and spaces, and anywhere in it `num_tokens` capitals, each drawn by
                            itself
    >TBTK                   at the very end `>` and these capitals in the order in which they stood; each is an answer
                            of its own

Selective copying of MAD (arXiv:2403.17844), which took it from Mamba (arXiv:2312.00752), with as many tokens and
letters by default. Between the tokens there is one blank token again and again in MAD, and here filler of many letters.
Each answer is predicted with the right ones before it in view, so the score is a share of tokens, as in MAD. By
default, looking one token back is right 0.68 of the time.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import MOST_ALIKE, commonest_of_the_rest
from miniwin.evaluation.tasks.placing import SPARE, VALUES, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task


@TASKS.register
class SelectiveCopying(Task):
    """num_letters: tokens are of the first so many capitals. Chance is that of a guess among these."""

    type: Literal["selective-copying"] = "selective-copying"
    num_tokens: Annotated[PositiveInt, Field(le=MOST_ALIKE)] = 16
    num_letters: Annotated[PositiveInt, Field(ge=2, le=len(VALUES))] = 14

    @property
    def chance(self) -> float:
        return 1 / self.num_letters

    @property
    def blind(self) -> float:
        """Of a model that knows which tokens are to be copied and which are left, and not in which order."""
        return commonest_of_the_rest(self.num_tokens, self.num_tokens, self.num_letters)

    @property
    def shortest(self) -> int:
        return 2 * self.num_tokens + 2 + SPARE  # tokens, newline, `>`, tokens

    def example(self, random: Random, length: int) -> Example:
        tokens = bytes(random.choices(VALUES[: self.num_letters], k=self.num_tokens))
        start = length - self.num_tokens
        context, _ = placed(random, start - 2, [b"%c" % token for token in tokens])
        return Example(context + b"\n>" + tokens, tuple((at, at + 1) for at in range(start, length)))
