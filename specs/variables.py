"""The variables of an architecture search: what the sampler chooses, a class for each kind.

    ratio:   {int: [1, 7]}                                     whole numbers, both ends included
    lr:      {float: [1e-4, 1e-2], log: true}
    window:  {choice: [16, 32]}                                one of a list
    factor:  {choice: [1, 2, 4], when: {encoding: p-rope}}     only where the variable `encoding` is p-rope
    global:  {subset: {of: num_layers, size: [1, 3]}}          which layers
    layout:  {sequence: {letters: [S, G], length: num_layers}} what each layer is

variable_links.py checks what variables say of each other.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from miniwin.specs.base import PositiveInt, Real
from miniwin.specs.conditional import Conditional, When, same
from miniwin.specs.placements import SequenceVariable, SubsetVariable

MOST_STEPS = 1e15  # of a real variable: float64 cannot tell the values of a finer grid apart

_Whole = int  # a variable has a field called int or float, which hides the type of that name
_Real = Real


class IntVariable(Conditional):
    """A whole number from `int[0]` to `int[1]`, both included."""

    int: Annotated[list[_Whole], Field(min_length=2, max_length=2)]
    step: PositiveInt = 1
    log: bool = False
    when: When = {}

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

    @property
    def values(self) -> range:
        return range(self.int[0], self.int[1] + 1, self.step)

    @property
    def size(self) -> _Whole:
        return (self.int[1] - self.int[0]) // self.step + 1

    def has(self, value: Any) -> bool:
        return isinstance(value, (_Whole, float)) and not isinstance(value, bool) and value in self.values


class FloatVariable(Conditional):
    """A real number from `float[0]` to `float[1]`, both included."""

    float: Annotated[list[_Real], Field(min_length=2, max_length=2)]
    step: Annotated[_Real, Field(gt=0)] | None = None
    log: bool = False
    when: When = {}

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

    @property
    def steps(self) -> _Whole:
        """How many steps above the lowest value the highest one is."""
        low, high = self.float
        return math.floor((high - low) / self.step + 1e-9) if self.step else 0

    @property
    def size(self) -> Any:  # a float, whose name is hidden here
        if self.step is None:
            return 1 if self.float[0] == self.float[1] else math.inf
        return self.steps + 1

    def at(self, index: _Whole) -> Any:
        """The value `index` steps above the lowest one."""
        low, high = self.float
        return min(low + index * (self.step or 0.0), high)  # 3 * 0.1 is more than 0.3

    def has(self, value: Any) -> bool:
        low, high = self.float
        if isinstance(value, bool) or not isinstance(value, (_Whole, type(low))):
            return False
        if not (low <= value <= high or math.isclose(value, high)):
            return False
        return self.step is None or math.isclose(
            (value - low) / self.step, round((value - low) / self.step), abs_tol=1e-9
        )


class ChoiceVariable(Conditional):
    """One of a list: numbers, text, true, false, null, or whole fields such as `{type: rope}`. Their order means
    nothing."""

    choice: Annotated[list[JsonValue], Field(min_length=1)]
    when: When = {}

    @model_validator(mode="after")
    def _distinct(self) -> ChoiceVariable:
        for index, value in enumerate(self.choice):
            for other in self.choice[:index]:
                if value == other:  # also 1 and true, which a sampler could not tell apart
                    raise ValueError(f"the choice {value!r} is there twice")
        return self

    @property
    def size(self) -> int:
        return len(self.choice)

    def has(self, value: Any) -> bool:
        return any(same(value, choice) for choice in self.choice)


KINDS = ("int", "float", "choice", "subset", "sequence")


def _variable_kind(value: Any) -> str | None:
    for kind in KINDS:
        if (isinstance(value, dict) and kind in value) or type(value).__name__ == f"{kind.title()}Variable":
            return kind
    return None


Variable = Annotated[
    Annotated[IntVariable, Tag("int")]
    | Annotated[FloatVariable, Tag("float")]
    | Annotated[ChoiceVariable, Tag("choice")]
    | Annotated[SubsetVariable, Tag("subset")]
    | Annotated[SequenceVariable, Tag("sequence")],
    Discriminator(
        _variable_kind,
        custom_error_type="variable_kind",
        custom_error_message="expected {int: [low, high]}, {float: [low, high]}, {choice: [...]}, {subset: {...}} or "
        "{sequence: {...}}",
    ),
]
