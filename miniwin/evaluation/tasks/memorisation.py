"""Memorisation: facts that are in no context, for they are the same in all examples: the weights have to know them.

    ...filler...            random lower-case letters and spaces
    qf=T...filler...        anywhere in it `num_queries` different keys (letters), each with its value, a capital; all
    xa=B...filler...        values are answers

Which value a key has is drawn once, from `seed`, for `num_facts` keys. So train, valid and test ask for the same facts,
and a model that has never been trained on this task with this seed has chance. Which keys are asked for, where, and in
what filler is different in each example, and no example is in two splits: a score of test says whether facts are
recalled in surroundings that were never seen, at any place and length. No key is twice in an example: there is nothing
to copy.

Memorization of MAD (arXiv:2403.17844). Where we deviate: in MAD no value is ever part of the input. Here the text goes
on after each, as language does.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt, Seed
from miniwin.evaluation.tasks.placing import SPARE, VALUES, check_keys, check_queries, keys, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task


@TASKS.register
class Memorisation(Task):
    """seed: of the facts, whatever the seed of the examples. Chance is that of a guess among all capitals."""

    type: Literal["memorisation"] = "memorisation"
    num_facts: PositiveInt = 64
    num_queries: PositiveInt = 4
    key_length: Annotated[PositiveInt, Field(le=2)] = 2  # letters
    seed: Seed = 0

    @model_validator(mode="after")
    def _there_are_so_many(self) -> Memorisation:
        check_queries(self.num_queries, self.num_facts, "num_facts")
        check_keys(self.num_facts, self.key_length)
        return self

    @property
    def record(self) -> int:
        """Bytes of a record: newline, key, `=`, value."""
        return 3 + self.key_length

    @property
    def facts(self) -> dict[bytes, int]:
        """The value of each key. Each capital is the value of equally many keys, as nearly as their number allows."""
        return _facts(self.seed, self.num_facts, self.key_length)

    @property
    def chance(self) -> float:
        return 1 / len(VALUES)

    @property
    def blind(self) -> float:
        """Of a model that knows only which value most facts have."""
        return -(-self.num_facts // len(VALUES)) / self.num_facts

    @property
    def shortest(self) -> int:
        return self.record * self.num_queries + SPARE

    def example(self, random: Random, length: int) -> Example:
        asked = random.sample(list(self.facts.items()), self.num_queries)
        text, starts = placed(random, length, [b"\n%b=%c" % fact for fact in asked])
        return Example(text, tuple((start + self.record - 1, start + self.record) for start in starts))


@cache
def _facts(seed: int, count: int, key_length: int) -> dict[bytes, int]:
    names = keys(Random(f"memorisation {seed}"), count, key_length)  # in random order
    return {name: VALUES[number % len(VALUES)] for number, name in enumerate(names)}
