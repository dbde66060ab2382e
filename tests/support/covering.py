"""A covering set: rows with one choice of each factor. Any two choices of two factors meet in some row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

Row = tuple[int, ...]
Pair = tuple[int, int, int, int]  # factor, choice, factor, choice


def pairs_of(row: Row) -> set[Pair]:
    return {(a, row[a], b, row[b]) for a, b in combinations(range(len(row)), 2)}


def pairwise(factors: Sequence[Sequence[object]], allowed: Callable[[Row], bool]) -> list[Row]:
    """Rows of indices, as few as a greedy choice needs. `allowed` judges whole rows. A pair that no allowed row holds
    is left out."""
    sizes = [len(choices) for choices in factors]
    wanted = [
        (a, i, b, j)
        for a, b in combinations(range(len(sizes)), 2)
        for i, j in product(range(sizes[a]), range(sizes[b]))
    ]
    missing, rows = set(wanted), []
    for pair in wanted:
        if pair not in missing:
            continue
        row = _filled(pair, sizes, missing, allowed)
        if row is None:
            missing.discard(pair)
            continue
        rows.append(row)
        missing -= pairs_of(row)
    return rows


def every_two(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows of choices, for a test's parameters."""
    rows = pairwise(factors, lambda row: True)
    return [tuple(choices[i] for choices, i in zip(factors, row, strict=True)) for row in rows]


def _filled(pair: Pair, sizes: list[int], missing: set[Pair], allowed: Callable[[Row], bool]) -> Row | None:
    """A row with this pair. Each other factor gets, one after the other, the choice that covers most missing pairs."""
    a, i, b, j = pair
    partial: dict[int, int] = {a: i, b: j}
    for factor in range(len(sizes)):
        if factor in partial:
            continue

        def gain(choice: int, factor: int = factor) -> int:
            met = [(min(f, factor), max(f, factor)) for f in partial]
            both = {**partial, factor: choice}
            return sum((x, both[x], y, both[y]) in missing for x, y in met)

        partial[factor] = max(range(sizes[factor]), key=gain)
    row = tuple(partial[f] for f in range(len(sizes)))
    if allowed(row):
        return row
    # The greedy row is not allowed: take the nearest allowed one.
    others = [range(sizes[f]) if f not in (a, b) else (partial[f],) for f in range(len(sizes))]
    candidates = (r for r in product(*others) if allowed(r))
    return max(candidates, key=lambda r: len(pairs_of(r) & missing), default=None)
