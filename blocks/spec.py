"""The base of every spec class, a strict and frozen pydantic model; and the error that a user's mistake raises.

A block's spec says everything about the block in plain numbers. `build()` turns the spec into a module. The module
takes numbers and modules, and knows nothing of YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from miniwin.blocks.messages.escaping import escaped


class UserError(ValueError):
    """A mistake that the user can fix. The message says what was got, what was expected, where, and how to fix it."""

    def __str__(self) -> str:
        return escaped(super().__str__())  # the message may quote a file, and may be printed to a terminal


class Strict(BaseModel):
    """Base of every spec: unknown fields and wrong types are errors, and an instance never changes.

    LATER: fields added after the format was first released. `facts` has them only if they differ from their default, so
    that the hash of an older file stays the same.
    """

    # defer_build: a field may hold any registered block, so pydantic builds a schema when it is first used.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )

    LATER: ClassVar[frozenset[str]] = frozenset()


class Grown(Strict):
    """A spec whose later fields are written, too, only where they differ from their default."""

    @model_serializer(mode="wrap")
    def _as_older_files(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {name: value for name, value in data.items() if not self._unsaid(name, fields[name].default)}

    def _unsaid(self, name: str, default: Any) -> bool:
        return name in self.LATER and getattr(self, name) == default


def facts(spec: Strict) -> dict[str, Any]:
    """A spec's fields as JSON data, for its hash."""
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
    """YAML reads 4e6 as a float; as a count it is still an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _real(value: Any) -> Any:
    """pydantic's strict floats refuse 1, an integer; here 1 is a number too. Booleans are not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
# Upper bounds: a mistyped number neither computes for minutes nor overflows a tensor's size.
PositiveInt = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=2**31 - 1)]
MOST_TOKENS = 10**15
Budget = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_TOKENS)]  # tokens: a count, never a tensor's size
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=2**64 - 1)]  # the range of torch's generators
Real = Annotated[float, BeforeValidator(_real)]
PositiveReal = Annotated[float, BeforeValidator(_real), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(_real), Field(ge=0, le=1)]
