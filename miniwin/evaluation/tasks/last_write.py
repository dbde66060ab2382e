"""Last write wins: a key is written several times, and its value is the one that was written last.

    ...qf=T...              `writes` writes of each of `num_keys` keys, all in random order: a key (letters) and a
    ...xa=B...qf=K...       capital; the values of one key are all different
    ...
    qf=K                    at the very end `num_queries` queries: different keys, each with its last value

A model that looks up the key and ignores the order is right once in `writes` times; writes.py has more baselines.
Variable assignment with updates (state tracking) is asked so in RULER (arXiv:2404.06654) and in the update questions of
LongMemEval (arXiv:2410.10813).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.writes import Writes, Written


@TASKS.register
class LastWrite(Writes):
    """Chance is that of a guess among all capitals; `1 / writes` is that of a model that is blind to order."""

    type: Literal["last-write"] = "last-write"

    def right(self, records: Sequence[Written]) -> Written:
        return records[-1]

    @property
    def which(self) -> str:
        return "last"
