"""The difference between two rows of one key, measured on the same examples or documents; or why there is none.

    difference = other - first

Rows pair if their settings are equal: then sample i of both is the same example or the same document. The samples have
to agree about it, too: as many answers asked for, texts of as many bytes. Nothing else is compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import Interval, verdict
from miniwin.evaluation.suite.differing import first_difference
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.evaluation.suite.samples import losses, shares

SAME = ("depth",)  # samples that say which example it is
ALONE = ("repetitions", "exact")  # what values are made of that have no pairs
TIMED = ("cpu", "gpu", "threads")  # of a machine, what repetitions depend on


@dataclass(frozen=True)
class Difference:
    """interval: of other - first; None where the rows are not comparable.

    said: the verdict on the other, or why they are not.
    unpaired: why the interval is not one of pairs, though examples or documents pair; else empty.
    """

    interval: Interval | None
    said: str
    unpaired: str = ""

    @property
    def text(self) -> str:
        """The verdict, for a table: `worse (unpaired: no samples)`."""
        return f"{self.said} (unpaired: {self.unpaired})" if self.unpaired else self.said

    def to_dict(self) -> dict[str, Any]:
        found = self.interval
        if found is None:
            return {"value": None, "low": None, "high": None, "n": 0, "verdict": None, "not_comparable": self.said}
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        value = {"value": found.value, "low": low, "high": high, "n": found.n, "verdict": self.said}
        return {**value, "unpaired": self.unpaired or None}


def difference(first: SuiteResult, other: SuiteResult, key: str) -> Difference | None:
    """What sets a row of the other result apart from that of the first; None if neither has a value."""
    a, b = _row(first, key), _row(other, key)
    if a is None and b is None:
        return None
    if a is None or b is None:
        return Difference(None, f"only {'the other' if a is None else 'the first'} has it")
    if a.value is None and b.value is None:
        return None
    if a.value is None or b.value is None:
        return Difference(None, f"{'first' if a.value is None else 'other'} left out")
    if reason := _why_not(first, a, other, b):
        return Difference(None, reason)
    found, unpaired = _interval(a, b)
    return Difference(found, said(found, b), unpaired)


def said(found: Interval, row: SuiteRow) -> str:
    """The verdict on the other model, in words."""
    if row.better is None:
        return "differs" if found.excludes(0.0) else "not distinguishable"
    if found.low == found.high == 0.0:
        return "equal"
    return verdict(found, lower_is_better=row.better == "lower")


def _row(result: SuiteResult, key: str) -> SuiteRow | None:
    return next((row for row in result.rows if row.key == key), None)


def _why_not(first: SuiteResult, a: SuiteRow, other: SuiteResult, b: SuiteRow) -> str:
    """Why two rows are not comparable; empty if they are."""
    if (a.unit, a.better) != (b.unit, b.better):
        return f"other unit: {a.unit} and {b.unit}"
    if place := _differs(a.setting, b.setting):
        return place
    if a.of == "repetitions" and (place := _differs(_timed(first), _timed(other))):
        return place
    for name in SAME:
        if a.samples.get(name) != b.samples.get(name):
            return f"other examples: their {name} differs"
    for found in ((shares(a), shares(b)), (losses(a), losses(b))):
        if found[0] and found[1] and not np.array_equal(found[0][1], found[1][1]):
            return f"other {a.of}: their sizes differ"
    return ""


def _timed(result: SuiteResult) -> dict[str, Any]:
    """What repetitions of a measure, such as times, depend on besides the model."""
    return {"device": result.device, "dtype": result.dtype, **{name: result.machine.get(name) for name in TIMED}}


def _differs(first: dict[str, Any], other: dict[str, Any]) -> str:
    """The first field in which two settings differ, with both values; empty if they are equal."""
    found = first_difference(first, other, most=24)
    return "" if found is None else f"other {found.field}: {found.one} and {found.two}"


def _interval(a: SuiteRow, b: SuiteRow) -> tuple[Interval, str]:
    """The interval of b - a, and why it is not one of pairs."""
    if (asked := shares(a)) and (answered := shares(b)):
        return intervals.share_difference(answered[0], asked[0], asked[1]), ""
    if (before := losses(a)) and (after := losses(b)):
        factor = before[2]
        found = intervals.loss_difference(after[0], before[0], before[1]).through(lambda value: factor * value)
        return found, ""
    unpaired = "" if a.of in ALONE else "not a mean" if a.samples and b.samples else "no samples"
    return intervals.difference(_known(b), _known(a)), unpaired


def _known(row: SuiteRow) -> Interval:
    """A row's own interval. Of measures without pairs, such as times, the two intervals are put together."""
    assert row.value is not None
    low, high = -math.inf if row.low is None else row.low, math.inf if row.high is None else row.high
    return Interval(row.value, low, high, row.n)
