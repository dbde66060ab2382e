"""Keys that are written several times: what tasks about the order of writes share.

    ...qf=T...              `writes` writes of each of `num_keys` keys, all in random order: a key (letters) and a
    ...xa=B...qf=K...       capital; the values of one key are all different
    ...
    qf=K                    at the very end `num_queries` queries: different keys, each with the value that is right

Baselines, for a model that does a part of the task. It looks up the key and ignores the order: right once in `writes`
times. It ignores the key, and takes the value that was written last (or first) of all: right once in `num_keys` times,
and by coincidence in 1/26 of the others. `blind` is the better of the two. It knows which write was the very last (or
first), and no more about the order: 1 / num_keys + (1 - 1 / num_keys) / writes, 2/3 with two keys and three writes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import VALUES, check_keys, check_queries, ends, keys, placed
from miniwin.evaluation.tasks.task import Example
from miniwin.evaluation.tasks.words import Passage, WordTask
from miniwin.evaluation.tasks.words.lists import CITIES, full_names, listed

Written = TypeVar("Written", bytes, str)


class Writes(WordTask):
    """Chance is that of a guess among all capitals."""

    num_keys: PositiveInt = 2
    writes: Annotated[PositiveInt, Field(le=len(VALUES))] = 3
    num_queries: PositiveInt = 1
    key_length: Annotated[PositiveInt, Field(le=2)] = 2  # letters

    @model_validator(mode="after")
    def _queries_are_of_keys(self) -> Writes:
        check_queries(self.num_queries, self.num_keys, "num_keys")
        check_keys(self.num_keys, self.key_length)
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
        """Of a model that ignores either the order or the key, whichever gets it further."""
        other_keys = self.num_keys - 1
        return max(1 / self.writes, (1 + other_keys / len(VALUES)) / self.num_keys)

    @property
    def shortest(self) -> int:
        return self.record * (self.num_keys * self.writes + self.num_queries)

    @abstractmethod
    def right(self, records: Sequence[Written]) -> Written:
        """Of the records of one key, in their order, the one whose value is asked for."""

    @property
    @abstractmethod
    def which(self) -> str:
        """The right write in words: `first` or `last`."""

    def example(self, random: Random, length: int) -> Example:
        names = keys(random, self.num_keys, self.key_length)
        order = [key for key in range(self.num_keys) for _ in range(self.writes)]
        random.shuffle(order)
        left = [random.sample(VALUES, self.writes) for _ in names]
        records: list[bytes] = []
        written: list[list[bytes]] = [[] for _ in names]
        for key in order:
            records.append(b"\n%b=%c" % (names[key], left[key].pop()))
            written[key].append(records[-1])
        asked = random.sample(range(self.num_keys), self.num_queries)
        context, _ = placed(random, length - self.record * self.num_queries, records)
        text = context + b"".join(self.right(written[key]) for key in asked)
        return Example(text, ends(len(context), [self.record] * len(asked)))

    @property
    def words_chance(self) -> float:
        return 1 / len(CITIES)

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_keys)
        visits = [(name, city) for name in names for city in random.sample(CITIES, self.writes)]
        random.shuffle(visits)
        asked = random.sample(names, self.num_queries)
        return Passage(
            facts=tuple(f"{name} moved to {city}." for name, city in visits),
            question=f"Question: Which city did {listed(asked)} move to {self.which}?",
            answers=tuple(self.right([city for other, city in visits if other == name]) for name in asked),
        )
