"""A row from an interval: the numbers of a measure at one length, as JSON has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import Interval
from miniwin.evaluation.suite.result import SuiteRow, key_of
from miniwin.files.writing import finite


def row(measure: str, length: int | None, trained: int | None, found: Interval | None, **fields: Any) -> SuiteRow:
    """A row of a measure. found: None where it was left out. trained: the model's training length."""
    times = length / trained if length is not None and trained is not None else None
    numbers = {"value": None, "low": None, "high": None, "n": 0} if found is None else plain(found)
    for name in ("samples", "detail"):  # a model may give NaN: its row has no value, and others have theirs
        if name in fields:
            fields[name] = finite(fields[name])
    return SuiteRow(key=key_of(measure, length), measure=measure, length=length, times=times, **numbers, **fields)


def plain(found: Interval) -> dict[str, Any]:
    """An interval as JSON data. What is not known is null, and so is a value that is no number."""
    value = found.value if math.isfinite(found.value) else None
    known = value is not None and math.isfinite(found.low) and math.isfinite(found.high)
    return {"value": value, "low": found.low if known else None, "high": found.high if known else None, "n": found.n}


def bits(nats: np.ndarray, sizes: np.ndarray) -> Interval:
    """Bits per byte over documents. nats, sizes: (D,); the sizes are bytes."""
    return intervals.loss(nats, sizes).through(lambda value: value / math.log(2))
