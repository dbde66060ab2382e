"""Several needles: numbers under different keys lie anywhere in the context, and some of them are asked for.

    ...filler...            random lower-case letters and spaces
    qf#4821...filler...     anywhere in it `num_needles` needles: a key (letters) and a number, all different
    xa#0937...filler...
    xa#0937                 at the very end `num_queries` queries: keys in another order, each with its number

The needles of RULER with several keys (arXiv:2404.06654, section 3.1): one query is its multi-key retrieval, several
are its multi-query. As with recall, the numbers that are left tell the last answers, so only some are asked for.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import one_of_the_rest
from miniwin.evaluation.tasks.placing import SPARE, check_keys, check_queries, ends, keys, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask
from miniwin.evaluation.tasks.words.lists import full_names, listed


@TASKS.register
class SeveralNeedles(WordTask):
    """num_queries: how many of the needles are asked for. Chance is that of a guess among all numbers."""

    type: Literal["several-needles"] = "several-needles"
    num_needles: PositiveInt = 4
    num_queries: PositiveInt = 2
    digits: Annotated[PositiveInt, Field(le=16)] = 4
    key_length: Annotated[PositiveInt, Field(le=2)] = 2  # letters

    @model_validator(mode="after")
    def _there_are_so_many(self) -> SeveralNeedles:
        check_queries(self.num_queries, self.num_needles, "num_needles")
        check_keys(self.num_needles, self.key_length)
        if self.num_needles > 10**self.digits:
            raise ValueError(
                f"got num_needles {self.num_needles} and digits {self.digits}; expected at most one needle for each "
                f"of the {10**self.digits} numbers of {self.digits} digits"
            )
        return self

    @property
    def record(self) -> int:
        """Bytes: newline, key, `#`, digits."""
        return 2 + self.key_length + self.digits

    @property
    def chance(self) -> float:
        return 10.0**-self.digits

    @property
    def blind(self) -> float:
        """Of a model that knows which numbers there are and which are left, and not to which key each belongs."""
        return one_of_the_rest(self.num_needles, self.num_queries)

    @property
    def shortest(self) -> int:
        return self.record * (self.num_needles + self.num_queries) + SPARE

    def example(self, random: Random, length: int) -> Example:
        names = keys(random, self.num_needles, self.key_length)
        numbers = random.sample(range(10**self.digits), self.num_needles)
        needles = [b"\n%b#%0*d" % (key, self.digits, found) for key, found in zip(names, numbers, strict=True)]
        asked = random.sample(range(self.num_needles), self.num_queries)
        context, starts = placed(random, length - self.record * self.num_queries, needles)
        text = context + b"".join(needles[needle] for needle in asked)
        depth = starts[asked[0]] / (len(context) - self.record) if len(asked) == 1 else None
        return Example(text, ends(len(context), [self.record] * len(asked), self.digits), depth)

    @property
    def words_chance(self) -> float:
        return self.chance

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_needles)
        numbers = [f"{found:0{self.digits}d}" for found in random.sample(range(10**self.digits), self.num_needles)]
        asked = random.sample(range(self.num_needles), self.num_queries)
        return Passage(
            facts=tuple(f"The number of {name} is {found}." for name, found in zip(names, numbers, strict=True)),
            question=f"Question: What is the number of {listed([names[one] for one in asked])}?",
            answers=tuple(numbers[one] for one in asked),
            about=asked[0] if len(asked) == 1 else None,
        )
