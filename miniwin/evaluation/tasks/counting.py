"""Counting: how often did this mark occur in the context?

    ...T...B...T...         lower-case letters and spaces, and in it marks of `num_marks` kinds: capitals. Each kind
    ...filler...T...        occurs between 0 and `max_count` times, all numbers equally likely
    T=3                     at the very end one of the kinds, and its number

As in the aggregation tasks of RULER (arXiv:2404.06654, section 3.3), but exact: the answer is the number itself, each
number is as likely as the others, and more filler does not bring more marks. To count marks of all kinds together, with
two kinds, is right (2 max_count + 1) / (max_count + 1)^2 of the time, 0.19, which is less than `blind`.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import SPARE, VALUES, ends, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask
from miniwin.evaluation.tasks.words.lists import full_names

QUESTION = 4  # bytes: newline, mark, `=`, digit


@TASKS.register
class Counting(WordTask):
    """Chance is that of a guess among the numbers from 0 to max_count."""

    type: Literal["counting"] = "counting"
    num_marks: Annotated[PositiveInt, Field(ge=2, le=len(VALUES))] = 2
    max_count: Annotated[PositiveInt, Field(le=9)] = 9  # a digit

    @property
    def chance(self) -> float:
        return 1 / (self.max_count + 1)

    @property
    def blind(self) -> float:
        """Of a model that knows whether the mark occurs at all, and not how often."""
        return 2 / (self.max_count + 1)

    @property
    def shortest(self) -> int:
        return self.num_marks * self.max_count + QUESTION + SPARE

    def example(self, random: Random, length: int) -> Example:
        kinds = random.sample(VALUES, self.num_marks)
        counts = [random.randrange(self.max_count + 1) for _ in kinds]
        marks = [b"%c" % kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]
        random.shuffle(marks)
        context, _ = placed(random, length - QUESTION, marks)
        return Example(context + b"\n%c=%d" % (kinds[0], counts[0]), ends(length - QUESTION, [QUESTION]))

    @property
    def words_chance(self) -> float:
        return self.chance

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_marks)
        counts = [random.randrange(self.max_count + 1) for _ in names]
        medals = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
        random.shuffle(medals)
        return Passage(
            facts=tuple(f"{name} won a medal." for name in medals),
            question=f"Question: How many medals did {names[0]} win? In digits.",
            answers=(str(counts[0]),),
        )
