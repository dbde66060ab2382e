"""Which came first: two marks were read somewhere in the context; which of them stood before the other?

    ...+qf...               `num_marks` marks, each once: a key of two letters
    ...+xa...+bd...
    xa,qf=qf                at the very end `num_queries` questions: two marks, and the one that came first

Order over a long distance cannot be had from positions inside a window. The two marks of a question are in random
order, so a model that is blind to order is right half of the time.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import LETTERS, ends, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task

MARK, QUESTION = 3, 6  # bytes: `\n+x`, and `\nx,y=x`


@TASKS.register
class WhichFirst(Task):
    """num_queries: each asks for a pair of marks drawn anew."""

    type: Literal["which-first"] = "which-first"
    num_marks: Annotated[PositiveInt, Field(ge=2, le=len(LETTERS))] = 4
    num_queries: PositiveInt = 2

    @property
    def chance(self) -> float:
        return 1 / 2

    @property
    def shortest(self) -> int:
        return MARK * self.num_marks + QUESTION * self.num_queries

    def example(self, random: Random, length: int) -> Example:
        marks = random.sample(LETTERS, self.num_marks)  # in the order in which they come
        context, _ = placed(random, length - QUESTION * self.num_queries, [b"\n+%c" % mark for mark in marks])
        questions = []
        for _ in range(self.num_queries):
            pair = random.sample(range(self.num_marks), 2)
            questions.append(b"\n%c,%c=%c" % (marks[pair[0]], marks[pair[1]], marks[min(pair)]))
        return Example(context + b"".join(questions), ends(len(context), [QUESTION] * self.num_queries))
