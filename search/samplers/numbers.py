"""Parameters as places in [0, 1]. Each choice, whole number, or step has the same share of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Axis:
    """One parameter, by its distribution."""

    def __init__(self, distribution: BaseDistribution) -> None:
        self._choices = getattr(distribution, "choices", None)
        if self._choices is not None:
            low, high, self._step, self._log = 0, len(self._choices) - 1, 1, False
        else:
            low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
            self._step, self._log = distribution.step, distribution.log  # type: ignore[attr-defined]
        self._low, self._high, self._whole = low, high, isinstance(low, int)
        half = self._step / 2 if self._step else 0.0
        self._ends = (self._scaled(low - half), self._scaled(high + half))

    def place(self, value: Any) -> float:
        low, high = self._ends
        number = value if self._choices is None else self._choices.index(value)
        return 0.5 if high == low else (self._scaled(number) - low) / (high - low)

    def value(self, place: float) -> Any:
        low, high = self._ends
        number = low + float(place) * (high - low)
        number = math.exp(number) if self._log else number
        if self._step:
            number = self._low + self._step * round((number - self._low) / self._step)
        number = min(max(number, self._low), self._high)
        number = round(number) if self._whole else number
        return number if self._choices is None else self._choices[number]

    def _scaled(self, number: float) -> float:
        return math.log(number) if self._log else number
