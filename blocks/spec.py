"""What every spec class is made of: strict, frozen pydantic models, and the error a user's mistake raises.

A block's spec says everything about the block in plain numbers; only `build()` reads it. The module it builds takes
numbers and modules and knows nothing of YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from miniwin.blocks.messages.escaping import escaped


class UserError(ValueError):
    """A mistake the user can mend. The message says what was got, what was expected, where, and how to fix it."""

    def __str__(self) -> str:
        return escaped(super().__str__())  # it may quote a file, and whoever prints it may print to a terminal


class Strict(BaseModel):
    """Base of every spec: unknown fields and wrong types are errors, and an instance never changes.

    LATER: fields added after the format was first released. They count in `facts` only where they differ from their
    default, so that what an older file says keeps its hash.
    """

    # defer_build: a field that may hold any registered block is put together when it is used, all blocks being known.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )

    LATER: ClassVar[frozenset[str]] = frozenset()


def facts(spec: Strict) -> dict[str, Any]:
    """What a spec says, as JSON data for a hash."""
    data = spec.model_dump(mode="json")
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if name in spec.LATER and value == type(spec).model_fields[name].get_default(call_default_factory=True):
            data.pop(name, None)
        elif isinstance(value, Strict):
            data[name] = facts(value)
        elif isinstance(value, (list, tuple)):
            data[name] = [facts(v) if isinstance(v, Strict) else d for v, d in zip(value, data[name], strict=True)]
    return data


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
Budget = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=10**15)]  # of tokens: counted, never a tensor's size
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=2**64 - 1)]  # what torch's generators take
Real = Annotated[float, BeforeValidator(_real)]
PositiveReal = Annotated[float, BeforeValidator(_real), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(_real), Field(ge=0, le=1)]
