"""What `zoo search` is asked for, as it is typed: `1M..10M`, `16k`, `recall@8k>=0.9`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from miniwin.specs import UserError
from miniwin.specs.lengths import LONGEST

_COUNT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][0-9]{1,2})?)([kKMGBT]?)")
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_LENGTH = re.compile(r"([0-9]{1,10})([kKM]?)")
_LENGTHS = {"": 1, "k": 2**10, "K": 2**10, "M": 2**20}
_TASK = re.compile(r"\s*([^\s@<>=]+)(?:@([^\s<>=]*))?\s*(>=|<=|>|<)\s*(\S+)\s*")
_SCORE = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE]-?[0-9]{1,2})?)(%?)")


@dataclass(frozen=True)
class Range:
    """Both ends belong to it."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Condition:
    """A score that an entry has to have. length: None where none was typed."""

    typed: str
    task: str
    length: int | None
    sign: str
    score: float

    def holds(self, value: float) -> bool:
        return {
            ">=": value >= self.score,
            "<=": value <= self.score,
            ">": value > self.score,
            "<": value < self.score,
        }[self.sign]

    @property
    def more_is_better(self) -> bool:
        return self.sign.startswith(">")


def size_range(typed: str) -> Range:
    """`1M..10M`, `..10M`, `1M..`: parameters. Raises UserError."""
    low, dots, high = typed.strip().partition("..")
    ends = [_count(text.strip()) if text.strip() else default for text, default in ((low, 0.0), (high, math.inf))]
    if not dots or not (low.strip() or high.strip()) or None in ends:
        raise UserError(
            f"--size: got {typed!r}; expected a range of parameters such as 1M..10M, ..10M (at most) or 1M.. (at least)"
        )
    first, last = (float(end) for end in ends if end is not None)
    if first > last:
        raise UserError(f"--size: got {typed!r}, which ends before it begins; write {high.strip()}..{low.strip()}")
    return Range(first, last)


def context_length(typed: str, option: str = "--context") -> int:
    """`4096`, `16k`, `1M`: tokens, a k is 1,024. Raises UserError."""
    found = _LENGTH.fullmatch(typed.strip())
    length = int(found[1]) * _LENGTHS[found[2]] if found else 0
    if not 1 <= length <= LONGEST:
        raise UserError(
            f"{option}: got {typed!r}; expected a number of tokens from 1 to {LONGEST:,}, such as 4096, 16k or 1M"
        )
    return length


def condition(typed: str) -> Condition:
    """`recall>=0.9`, `recall@8k>=90%`, `bits_per_byte@16384<=1.2`. Raises UserError."""
    found = _TASK.fullmatch(typed)
    score = _SCORE.fullmatch(found[4]) if found else None
    if found is None or score is None:
        raise UserError(
            f"--task: got {typed!r}; expected NAME>=SCORE or NAME@LENGTH>=SCORE (or <=, <, >), such as recall>=0.9, "
            "'recall@8k>=90%' or 'bits_per_byte@16384<=1.2'; quote it, since a shell reads > and < itself"
        )
    length = None if found[2] is None else context_length(found[2], f"--task {typed}: the length")
    return Condition(typed.strip(), found[1], length, found[3], float(score[1]) / (100 if score[2] else 1))


def _count(typed: str) -> float | None:
    found = _COUNT.fullmatch(typed)
    return float(found[1]) * _FACTORS[found[2]] if found else None
