"""Lengths of context: a number of tokens, or a multiple of the length that a model was trained at, such as `16x`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from miniwin.specs.base import UserError

LONGEST = 2**31 - 1  # tokens: the bound of every length in a spec
_TIMES = re.compile(r"([1-9][0-9]{0,5})x")
PATTERN = f"^{_TIMES.pattern}$"


def times(length: int | str) -> int | None:
    """16 for `16x`; None for a number of tokens."""
    found = _TIMES.fullmatch(length) if isinstance(length, str) else None
    return None if found is None else int(found[1])


def in_tokens(length: int | str, trained: int | None) -> int:
    """The number of tokens. trained: the training length; None where it is not known.

    Raises:
        UserError: the length is a multiple of what is not known, or longer than any text.
    """
    factor = times(length)
    if factor is None:
        return int(length)
    if trained is None:
        raise UserError(f"{length} is a multiple of the training length, and that is not known here")
    if factor * trained > LONGEST:
        raise UserError(f"{length} of a training length of {trained:,} is more than {LONGEST:,} tokens; make it less")
    return factor * trained


def _length(value: Any) -> int | str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST:
        return value
    if isinstance(value, str) and _TIMES.fullmatch(value):
        return value
    got = f"'{value}'" if isinstance(value, str) else value
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        hint = ": remove the quotes"
    elif isinstance(value, str) and re.fullmatch(r"[0-9.]+[kKmM]", value):
        hint = ": write it in digits, such as 4096"
    raise ValueError(
        f"got {got}; expected a number of tokens from 1 to {LONGEST}, or a multiple of the training length such as "
        f"16x{hint}"
    )


Length = Annotated[
    int | str,
    PlainValidator(_length),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": PATTERN}]}),
]
