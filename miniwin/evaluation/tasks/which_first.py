"""Which came first: two marks were read somewhere in the context; which of them stood before the other?

    ...+q...                `num_marks` marks, each once: a letter
    ...+x...+b...
    x,q=q                   at the very end `num_queries` questions: two marks, and the one that came first

Order over a long distance cannot be had from positions inside a window. The two marks of a question are in random
order, so a model that is blind to order is right half of the time. No mark is in two questions: from one answer
nothing follows for the next. A model that knows which mark came last of all (or first), and no more about the order, is
right 1/2 + 1 / num_marks of the time, 3/4 with four marks: more marks ask for more.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import LETTERS, ends, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask
from miniwin.evaluation.tasks.words.lists import full_names

MARK, QUESTION = 3, 6  # bytes: `\n+x`, and `\nx,y=x`


@TASKS.register
class WhichFirst(WordTask):
    """num_queries: at most one for every two marks."""

    type: Literal["which-first"] = "which-first"
    num_marks: Annotated[PositiveInt, Field(ge=2, le=len(LETTERS))] = 4
    num_queries: PositiveInt = 2

    @model_validator(mode="after")
    def _queries_share_no_mark(self) -> WhichFirst:
        if 2 * self.num_queries > self.num_marks:
            raise ValueError(
                f"got num_queries {self.num_queries} and num_marks {self.num_marks}; expected two marks a query"
            )
        return self

    @property
    def chance(self) -> float:
        return 1 / 2

    @property
    def blind(self) -> float:
        """Of a model that knows which mark came last of all, and no more about the order."""
        if self.num_marks == 2:  # that is the whole task
            return self.chance
        return 1 / 2 + 1 / self.num_marks

    @property
    def shortest(self) -> int:
        return MARK * self.num_marks + QUESTION * self.num_queries

    def example(self, random: Random, length: int) -> Example:
        marks = random.sample(LETTERS, self.num_marks)  # in the order in which they come
        context, _ = placed(random, length - QUESTION * self.num_queries, [b"\n+%c" % mark for mark in marks])
        questions = []
        asked = random.sample(range(self.num_marks), 2 * self.num_queries)
        for pair in zip(asked[::2], asked[1::2], strict=True):
            questions.append(b"\n%c,%c=%c" % (marks[pair[0]], marks[pair[1]], marks[min(pair)]))
        return Example(context + b"".join(questions), ends(len(context), [QUESTION] * self.num_queries))

    @property
    def words_chance(self) -> float:
        return 1 / 2

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_marks)  # in the order in which they come
        asked = random.sample(range(self.num_marks), 2 * self.num_queries)
        pairs = list(zip(asked[::2], asked[1::2], strict=True))
        questions = [f"Who signed the guest book first, {names[one]} or {names[other]}?" for one, other in pairs]
        return Passage(
            facts=tuple(f"{name} signed the guest book." for name in names),
            question=f"Question: {' '.join(questions)}",
            answers=tuple(names[min(pair)] for pair in pairs),
        )
