"""Lists in messages: the first few items of many, so that the rest of the message stays readable."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice


def some(items: Iterable[object], most: int = 4, sep: str = ", ") -> str:
    """`a, b, c, d and 10,992 more`; all items if there are at most `most`."""
    known = list(items)
    more = len(known) - most
    return sep.join(map(str, islice(known, most))) + (f" and {more:,} more" if more > 0 else "")
