"""Multi-hop lookup: a variable is assigned another variable, and that one another, up to one that is assigned a value.

    ...qf=T...xa=B...       `num_chains` variables (letters) with values, capitals, all different,
    ...bd=xa...mm=qf...     then the next variable of each chain, and so on, `num_hops` times: each level in an order of
    ...zk=bd...             its own
    ...
    zk:B                    at the very end `num_queries` queries: the last variables of chains, each with its value

Variable tracking as in RULER (arXiv:2404.06654, section 3.2). RULER asks for all variables that have a given value;
here a variable is given and its value asked for, so that an answer has one byte. RULER shuffles the chains into each
other, so the value that stands nearest is the right one more often than another. Here all of a level stands before the
next level, and each level is shuffled for itself: where a record stands does not tell which chain it belongs to.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import one_of_the_rest
from miniwin.evaluation.tasks.placing import SPARE, VALUES, check_keys, check_queries, ends, keys, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask
from miniwin.evaluation.tasks.words.lists import NOUNS, full_names, listed


@TASKS.register
class MultiHop(WordTask):
    """num_hops: assignments between the variable that is asked for and the one that has a value."""

    type: Literal["multi-hop"] = "multi-hop"
    num_chains: Annotated[PositiveInt, Field(le=len(VALUES))] = 4
    num_hops: PositiveInt = 2
    num_queries: PositiveInt = 2
    key_length: Annotated[PositiveInt, Field(le=2)] = 2  # letters

    @model_validator(mode="after")
    def _there_are_so_many(self) -> MultiHop:
        check_queries(self.num_queries, self.num_chains, "num_chains")
        check_keys(self.num_chains * (self.num_hops + 1), self.key_length)
        return self

    @property
    def record(self) -> int:
        """Bytes of a variable with its value: newline, variable, `=` or `:`, value."""
        return 3 + self.key_length

    @property
    def chance(self) -> float:
        return 1 / len(VALUES)

    @property
    def blind(self) -> float:
        """Of a model that knows which values there are and which are left, and does not follow the hops."""
        return one_of_the_rest(self.num_chains, self.num_queries)

    @property
    def shortest(self) -> int:
        hop = 2 + 2 * self.key_length  # newline, variable, `=`, variable
        return self.num_chains * (self.record + self.num_hops * hop) + self.num_queries * self.record + SPARE

    def example(self, random: Random, length: int) -> Example:
        names = keys(random, self.num_chains * (self.num_hops + 1), self.key_length)
        values = random.sample(VALUES, self.num_chains)
        level = names[: self.num_chains]
        records = [b"\n%b=%c" % pair for pair in zip(level, values, strict=True)]
        for hop in range(1, self.num_hops + 1):
            following = names[hop * self.num_chains : (hop + 1) * self.num_chains]
            hops = [b"\n%b=%b" % pair for pair in zip(following, level, strict=True)]
            random.shuffle(hops)
            records += hops
            level = following
        queries = [b"\n%b:%c" % pair for pair in zip(level, values, strict=True)]
        asked = random.sample(queries, self.num_queries)
        context, _ = placed(random, length - self.record * self.num_queries, records)
        return Example(context + b"".join(asked), ends(len(context), [self.record] * len(asked)))

    @property
    def words_chance(self) -> float:
        return 1 / len(NOUNS)

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_chains * (self.num_hops + 1))
        values = random.sample(NOUNS, self.num_chains)
        level = names[: self.num_chains]
        facts = [f"The secret word of {name} is {value}." for name, value in zip(level, values, strict=True)]
        for hop in range(1, self.num_hops + 1):
            following = names[hop * self.num_chains : (hop + 1) * self.num_chains]
            hops = [f"{name} has the secret word of {other}." for name, other in zip(following, level, strict=True)]
            random.shuffle(hops)
            facts += hops
            level = following
        asked = random.sample(range(self.num_chains), self.num_queries)
        return Passage(
            facts=tuple(facts),
            question=f"Question: What is the secret word of {listed([level[chain] for chain in asked])}?",
            answers=tuple(values[chain] for chain in asked),
        )
