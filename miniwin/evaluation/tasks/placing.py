"""Records at random places in filler, all arrangements equally likely.

Filler is lower-case letters and spaces. A record begins with a line end, and the filler holds none: no filler can be
mistaken for a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
VALUES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_KEYS = {1: [bytes((a,)) for a in LETTERS], 2: [bytes((a, b)) for a in LETTERS for b in LETTERS]}
DIGITS = b"0123456789"
SPARE = 8  # bytes of filler that every example has room for: so many texts can be told apart by their split
_FILLER = (LETTERS + b"      ") * 8  # a table for all 256 bytes: 32 characters, equally likely


def filler(random: Random, length: int) -> bytes:
    """`length` bytes of lower-case letters and spaces."""
    return random.randbytes(length).translate(_FILLER)


def placed(random: Random, length: int, records: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """(`length` bytes of filler with the records in it in their order, where each record starts)."""
    text = bytearray(filler(random, length))
    free = length - sum(map(len, records))
    assert free >= 0, "Task.shortest makes sure that the records fit"
    gaps = sorted(random.sample(range(free + len(records)), len(records)))  # as if each record took one byte
    starts, taken = [], 0
    for number, (gap, record) in enumerate(zip(gaps, records, strict=True)):
        start = gap - number + taken
        text[start : start + len(record)] = record
        starts.append(start)
        taken += len(record)
    return bytes(text), starts


def number(random: Random, digits: int) -> bytes:
    """A number of so many digits, zeros in front included, all equally likely."""
    return b"%0*d" % (digits, random.randrange(10**digits))


def keys(random: Random, count: int, length: int) -> list[bytes]:
    """Keys of `length` letters, 1 or 2, all different."""
    every = _KEYS[length]
    return [every[key] for key in random.sample(range(len(every)), count)]


def check_keys(count: int, length: int) -> None:
    """Raise ValueError if there are not so many keys."""
    if count > len(_KEYS[length]):
        raise ValueError(f"got {count} keys of length {length}; expected at most {len(_KEYS[length])} different ones")


def check_queries(asked: int, total: int, field: str) -> None:
    """Raise ValueError if more is asked for than there is. field: where the total is said, such as `num_pairs`."""
    if asked > total:
        one = field.removeprefix("num_").removesuffix("s")
        raise ValueError(f"got num_queries {asked} and {field} {total}; expected at most one query a {one}")


def ends(start: int, lengths: Sequence[int], size: int = 1) -> tuple[tuple[int, int], ...]:
    """The last `size` bytes of each of several texts that follow one another from `start` on, as answers."""
    spans = []
    for length in lengths:
        start += length
        spans.append((start - size, start))
    return tuple(spans)
