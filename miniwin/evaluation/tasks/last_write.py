"""Last write wins: a key is written several times, and its value is the one that was written last.

    ...qf=T...              `writes` writes of each of `num_keys` keys, all in random order: a key (letters) and a
    ...xa=B...qf=K...       capital; the values of one key are all different
    ...
    qf=K                    at the very end `num_queries` queries: different keys, each with its last value

A model that looks up the key and ignores the order is right once in `writes` times. Variable assignment with updates
(state tracking) is asked so in RULER (arXiv:2404.06654) and in the update questions of LongMemEval (arXiv:2410.10813).
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import VALUES, check_keys, ends, keys, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task


@TASKS.register
class LastWrite(Task):
    """Chance is that of a guess among all capitals; `1 / writes` is that of a model that is blind to order."""

    type: Literal["last-write"] = "last-write"
    num_keys: PositiveInt = 2
    writes: Annotated[PositiveInt, Field(le=len(VALUES))] = 3
    num_queries: PositiveInt = 1
    key_length: Annotated[PositiveInt, Field(le=2)] = 2  # letters

    @model_validator(mode="after")
    def _queries_are_of_keys(self) -> LastWrite:
        if self.num_queries > self.num_keys:
            raise ValueError(
                f"got num_queries {self.num_queries} and num_keys {self.num_keys}; expected at most one query a key"
            )
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
    def shortest(self) -> int:
        return self.record * (self.num_keys * self.writes + self.num_queries)

    def example(self, random: Random, length: int) -> Example:
        names = keys(random, self.num_keys, self.key_length)
        order = [key for key in range(self.num_keys) for _ in range(self.writes)]
        random.shuffle(order)
        left = [random.sample(VALUES, self.writes) for _ in names]
        last: dict[int, bytes] = {}
        records = []
        for key in order:
            last[key] = b"\n%b=%c" % (names[key], left[key].pop())
            records.append(last[key])
        asked = random.sample(range(self.num_keys), self.num_queries)
        context, _ = placed(random, length - self.record * self.num_queries, records)
        text = context + b"".join(last[key] for key in asked)
        return Example(text, ends(len(context), [self.record] * len(asked)))
