"""Lists in messages: the first few of many. Who has eleven thousand entries wants to read the rest of the line too."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice


def some(items: Iterable[object], most: int = 4, sep: str = ", ") -> str:
    """`a, b, c and 10,992 more`; every one of them where there are few."""
    known = list(items)
    more = len(known) - most
    return sep.join(map(str, islice(known, most))) + (f" and {more:,} more" if more > 0 else "")
