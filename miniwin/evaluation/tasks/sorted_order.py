"""Sorted order: of all marks in the context, which comes next in the alphabet?

    ...+q...+d...           `num_marks` marks, all different letters, each once, in random order
    ...+a...+w...
    d>q                     at the very end `num_queries` queries: one of the marks, and the next in alphabetical order;
    w>a                     after the last comes the first again

The answer depends on all marks and on what is not among them: none may lie between. The alphabet goes round, so each
letter is the answer equally often. Few marks leave wide gaps: then no rule about letters alone beats a guess among the
marks.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import LETTERS, check_queries, ends, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task

MARK, QUERY = 3, 4  # bytes: `\n+q`, and `\nd>q`


@TASKS.register
class SortedOrder(Task):
    """num_marks: at most 6, for with more the letter that follows in the alphabet is too good a guess."""

    type: Literal["sorted-order"] = "sorted-order"
    num_marks: Annotated[PositiveInt, Field(ge=3, le=6)] = 5
    num_queries: PositiveInt = 1

    @model_validator(mode="after")
    def _queries_are_of_marks(self) -> SortedOrder:
        check_queries(self.num_queries, self.num_marks, "num_marks")
        return self

    @property
    def chance(self) -> float:
        return 1 / len(LETTERS)

    @property
    def blind(self) -> float:
        """Of a model that knows the marks and the queries before, and not the order of the alphabet.

        Each answer is one of the marks that were no answer yet, other than the one that would close the circle early.
        """
        choices = [max(1, self.num_marks - 1 - before) for before in range(self.num_queries)]
        return sum(1 / choice for choice in choices) / self.num_queries

    @property
    def shortest(self) -> int:
        return MARK * self.num_marks + QUERY * self.num_queries

    def example(self, random: Random, length: int) -> Example:
        marks = random.sample(LETTERS, self.num_marks)
        in_order = sorted(marks)
        following = dict(zip(in_order, [*in_order[1:], in_order[0]], strict=True))
        context, _ = placed(random, length - QUERY * self.num_queries, [b"\n+%c" % mark for mark in marks])
        asked = random.sample(marks, self.num_queries)
        text = context + b"".join(b"\n%c>%c" % (mark, following[mark]) for mark in asked)
        return Example(text, ends(len(context), [QUERY] * len(asked)))
