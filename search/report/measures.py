"""How an objective is shown in a report: its name, its unit, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from miniwin.display.formats import binary_unit
from miniwin.display.page.axes import Axis
from miniwin.search.objectives import TEXTS
from miniwin.specs.objectives import Objective

LN2 = math.log(2)


def known(value: float | None) -> float:
    """A stored number. JSON's null stands for a number that is not finite."""
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class Measure:
    """How an objective is shown: its title, and the text and the factor of its stored values."""

    title: str
    text: Callable[..., str]  # of a value, and how many more digits are wanted
    factor: float = 1.0
    lower_is_better: bool = True
    binary: bool = False

    def axis(self, values: Sequence[float]) -> Axis:
        """An axis for these values, as they are shown. Bytes that differ several times over get powers of two."""
        positive = [v for v in values if v > 0]
        largest, smallest = max(positive, default=1.0), min(positive, default=1.0)
        unit = float(binary_unit(largest)) if self.binary else 1.0
        return Axis(self.title, self.text, log=self.binary and largest / smallest >= 4, unit=unit)


def measure(objective: Objective, trained: int) -> Measure:
    """How an objective is shown. Losses are stored in nats per byte and shown in bits per byte.

    trained: the training length of the study's train spec.
    """
    row, length = objective.row, objective.length(trained)
    at = f" at {length:,} tokens" if length else ""
    if isinstance(objective.at, str):
        at = f" at {objective.at} ({length:,} tokens)"
    lower = objective.direction == "minimize"
    return Measure(row.title.format(at=at), TEXTS[row.unit], row.factor, lower, row.unit == "bytes")
