"""Variables that have a value only under conditions: `when: {encoding: p-rope}`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import JsonValue

from miniwin.specs.base import Grown

When = dict[str, JsonValue]  # another variable, and the value (or a list of values) that it has to have


class Conditional(Grown):
    """A variable that has a value only where each variable of its field `when` has the value, or one of the values,
    given there. The field comes last, so each kind of variable has it of its own."""

    LATER: ClassVar[frozenset[str]] = frozenset({"when"})


def conditions(variable: Any) -> dict[str, list[Any]]:
    """For each variable of `when`, the values that it may have."""
    return {name: value if isinstance(value, list) else [value] for name, value in variable.when.items()}


def same(one: Any, other: Any) -> bool:
    """Whether two values of YAML are equal; true is not 1 here."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)
