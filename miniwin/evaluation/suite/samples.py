"""What a row's value is made of. A row does not say which formula; the formula that gives its value is the one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from miniwin.evaluation.intervals import Array
from miniwin.evaluation.suite.result import SuiteRow

NEAR = 1e-6  # how far, of the value, a formula may be off by rounding
LOSSES = (("nats", "bytes", 1 / math.log(2)), ("nats", "asked", 1.0))  # a sum, over a sum, and the factor


def shares(row: SuiteRow) -> tuple[Array, Array] | None:
    """(right, asked), (E,) each, if the value is their share."""
    found = _columns(row, "right", "asked")
    return found if found and _gives(row, found, 1.0) else None


def losses(row: SuiteRow) -> tuple[Array, Array, float] | None:
    """(nats, units, factor) if the value is factor * sum(nats) / sum(units). Both (D,): documents, or examples."""
    for nats, units, factor in LOSSES:
        found = _columns(row, nats, units)
        if found and _gives(row, found, factor):
            return *found, factor
    return None


def _columns(row: SuiteRow, *names: str) -> tuple[Array, Array] | None:
    columns: list[Sequence[float | int | None]] = [row.samples.get(name, []) for name in names]
    if not columns[0] or len(columns[0]) != len(columns[1]) or any(None in column for column in columns):
        return None
    first, second = (np.array(column, dtype=np.float64) for column in columns)
    return first, second


def _gives(row: SuiteRow, columns: tuple[Array, Array], factor: float) -> bool:
    total = float(columns[1].sum())
    return (
        row.value is not None
        and total > 0
        and math.isclose(factor * float(columns[0].sum()) / total, row.value, rel_tol=NEAR, abs_tol=1e-12)
    )
