"""What every spec class is made of: strict, frozen pydantic models, and the error a user's mistake raises.

A block's spec says everything about the block in plain numbers; only `build()` reads it. The module it builds takes
numbers and modules and knows nothing of YAML.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class UserError(ValueError):
    """A mistake the user can mend. The message says what was got, what was expected, where, and how to fix it."""


class Strict(BaseModel):
    """Base of every spec: unknown fields and wrong types are errors, and an instance never changes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _whole(value: Any) -> Any:
    """YAML reads 4e6 as a float; a count written that way is still a whole number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _real(value: Any) -> Any:
    """Strict floats refuse 1; a number written without a point is still that number. Booleans are not numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
# Bounds keep a slip of the keyboard from computing for minutes or overflowing a tensor's size.
PositiveInt = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=2**31 - 1)]
Real = Annotated[float, BeforeValidator(_real)]
PositiveReal = Annotated[float, BeforeValidator(_real), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(_real), Field(ge=0, le=1)]
