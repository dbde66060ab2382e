"""The variables of an architecture search: what the sampler chooses, a class for each kind.

ratio:   {int: [1, 7]}                whole numbers, both ends included
lr:      {float: [1e-4, 1e-2], log: true}
window:  {choice: [16, 32]}           one of a list
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from miniwin.specs.base import PositiveInt, Real, Strict

MOST_STEPS = 1e15  # of a real variable: float64 cannot tell the values of a finer grid apart

_Whole = int  # a variable has a field called int or float, which hides the type of that name
_Real = Real


class IntVariable(Strict):
    """A whole number from `int[0]` to `int[1]`, both included."""

    int: Annotated[list[_Whole], Field(min_length=2, max_length=2)]
    step: PositiveInt = 1
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> IntVariable:
        low, high = self.int
        if low > high:
            raise ValueError(f"the range [{low}, {high}] is empty: write the smaller number first")
        if self.log and (low < 1 or self.step != 1):
            raise ValueError(
                f"log: true needs a lowest value of at least 1 and no step; got [{low}, {high}], step {self.step}"
            )
        return self


class FloatVariable(Strict):
    """A real number from `float[0]` to `float[1]`, both included."""

    float: Annotated[list[_Real], Field(min_length=2, max_length=2)]
    step: Annotated[_Real, Field(gt=0)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> FloatVariable:
        low, high = self.float
        if low > high:
            raise ValueError(f"the range [{low:g}, {high:g}] is empty: write the smaller number first")
        if not math.isfinite(high - low):
            raise ValueError(f"the range [{low:g}, {high:g}] is too wide for floating-point numbers")
        if self.step is not None and not (high - low) / self.step < MOST_STEPS:
            raise ValueError(f"step {self.step:g} divides [{low:g}, {high:g}] too finely: leave it out")
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError(f"log: true needs a lowest value above 0 and no step; got [{low:g}, {high:g}]")
        return self


class ChoiceVariable(Strict):
    """One of a list: numbers, text, true, false, null, or whole fields such as `{type: rope}`. Their order means
    nothing."""

    choice: Annotated[list[JsonValue], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> ChoiceVariable:
        for index, value in enumerate(self.choice):
            for other in self.choice[:index]:
                if value == other:  # also 1 and true, which a sampler could not tell apart
                    raise ValueError(f"the choice {value!r} is there twice")
        return self


def _variable_kind(value: Any) -> str | None:
    for kind in ("int", "float", "choice"):
        if (isinstance(value, dict) and kind in value) or type(value).__name__ == f"{kind.title()}Variable":
            return kind
    return None


Variable = Annotated[
    Annotated[IntVariable, Tag("int")]
    | Annotated[FloatVariable, Tag("float")]
    | Annotated[ChoiceVariable, Tag("choice")],
    Discriminator(
        _variable_kind,
        custom_error_type="variable_kind",
        custom_error_message="expected {int: [low, high]}, {float: [low, high]} or {choice: [...]}",
    ),
]
