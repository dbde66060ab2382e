"""Recall: which value belongs to a key? Multi-query associative recall (MQAR, arXiv:2312.04927, section 3), as text.

    ...filler...            random lower-case letters and spaces
    qf=T...filler...        anywhere in it `num_pairs` pairs: a key (letters, all different) and a capital
    xa=B...filler...
    xa=B                    at the very end `num_queries` queries: keys in another order, each with its value
    qf=T

What follows the `=` of a query is in the context and nowhere else. The paper uses bare tokens without filler; as text,
a model of code can be asked too. It asks for every pair. Then the values that are left tell the last answers by
elimination: with 4 pairs a model that never looks up a key is right half of the time. So only some are asked for.
Looking up the last letter of a key alone is right 0.77 of the time, with 16 keys of two letters.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import commonest_of_the_rest
from miniwin.evaluation.tasks.placing import VALUES, check_keys, check_queries, ends, keys, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask
from miniwin.evaluation.tasks.words.lists import NOUNS, full_names, listed


@TASKS.register
class Recall(WordTask):
    """num_queries: how many of the pairs are asked for."""

    type: Literal["recall"] = "recall"
    num_pairs: PositiveInt = 16
    num_queries: PositiveInt = 4
    key_length: Annotated[PositiveInt, Field(le=2)] = 2  # letters

    @model_validator(mode="after")
    def _queries_are_of_pairs(self) -> Recall:
        check_queries(self.num_queries, self.num_pairs, "num_pairs")
        check_keys(self.num_pairs, self.key_length)
        return self

    @property
    def record(self) -> int:
        """Bytes of a record: newline, key, `=`, value."""
        return 3 + self.key_length

    @property
    def chance(self) -> float:
        return 1 / len(VALUES)

    @property
    def blind(self) -> float:
        """Of a model that knows which values there are and which are left, and not to which key each belongs."""
        return commonest_of_the_rest(self.num_pairs, self.num_queries, len(VALUES))

    @property
    def shortest(self) -> int:
        return self.record * (self.num_pairs + self.num_queries)

    def example(self, random: Random, length: int) -> Example:
        pairs = [b"\n%b=%c" % (key, random.choice(VALUES)) for key in keys(random, self.num_pairs, self.key_length)]
        asked = random.sample(range(self.num_pairs), self.num_queries)
        context, starts = placed(random, length - self.record * self.num_queries, pairs)
        text = context + b"".join(pairs[number] for number in asked)
        depth = starts[asked[0]] / max(1, len(context) - self.record) if len(asked) == 1 else None
        return Example(text, ends(len(context), [self.record] * len(asked)), depth)

    @property
    def words_chance(self) -> float:
        return 1 / len(NOUNS)

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_pairs)
        values = [random.choice(NOUNS) for _ in names]
        asked = random.sample(range(self.num_pairs), self.num_queries)
        return Passage(
            facts=tuple(f"The password of {name} is {value}." for name, value in zip(names, values, strict=True)),
            question=f"Question: What is the password of {listed([names[number] for number in asked])}?",
            answers=tuple(values[number] for number in asked),
            about=asked[0] if len(asked) == 1 else None,
        )
