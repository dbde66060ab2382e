"""First write wins: a key is written several times, and its value is the one that was written first.

    ...qf=T...              `writes` writes of each of `num_keys` keys, all in random order: a key (letters) and a
    ...xa=B...qf=K...       capital; the values of one key are all different
    ...
    qf=T                    at the very end `num_queries` queries: different keys, each with its first value

The mirror of last-write, drawn alike, with the same baselines. A model for which the nearest match wins has solved
last-write and is always wrong here. One that reads the order has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.writes import Writes, Written


@TASKS.register
class FirstWrite(Writes):
    """Chance is that of a guess among all capitals; `1 / writes` is that of a model that is blind to order."""

    type: Literal["first-write"] = "first-write"

    def right(self, records: Sequence[Written]) -> Written:
        return records[0]

    @property
    def which(self) -> str:
        return "first"
