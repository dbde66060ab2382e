"""Rows of a mixture: the parts take turns in proportion to their weights, in a fixed order.

    rows first .. first + count - 1:   of part p the rows c_p(first) .. c_p(first + count) - 1

c_p(n) is how many of the first n rows are of part p, a formula (shares.py). So each part goes through its own epochs as
it does alone, for each length of rows by itself, and a run resumes at any row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from miniwin.data.rows import Row, Rows
from miniwin.data.shares import counts
from miniwin.specs import UserError


class MixedRows:
    """parts: the name and the rows of each. weights: one a part."""

    def __init__(self, parts: Sequence[tuple[str, Rows]], weights: Sequence[float]) -> None:
        self.names, self.parts = tuple(name for name, _ in parts), tuple(rows for _, rows in parts)
        self.weights = tuple(weights)

    def check(self, seq_len: int) -> None:
        for place, (name, rows) in enumerate(zip(self.names, self.parts, strict=True)):
            try:
                rows.check(seq_len)
            except UserError as error:
                raise UserError(f"data.parts.{place}: {name}: {error}") from None

    def rows(self, first: int, count: int, seq_len: int, seed: int) -> list[Row]:
        found: list[Row] = []
        for rows, begin, size in zip(self.parts, counts(first, self.weights), self.sizes(first, count), strict=True):
            found += rows.rows(begin, size, seq_len, seed)
        return found

    def documents(self, first: int, count: int, seq_len: int, seed: int) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        start = 0
        for rows, begin, size in zip(self.parts, counts(first, self.weights), self.sizes(first, count), strict=True):
            found |= {start + place: own for place, own in rows.documents(begin, size, seq_len, seed).items()}
            start += size
        return found

    def sizes(self, first: int, count: int) -> tuple[int, ...]:
        before, after = counts(first, self.weights), counts(first + count, self.weights)
        return tuple(end - begin for begin, end in zip(before, after, strict=True))
