"""The base of every spec, re-exported so that spec files need one import."""

from __future__ import annotations

from miniwin.blocks.spec import (
    MOST_TOKENS,
    Budget,
    Count,
    Fraction,
    Grown,
    PositiveInt,
    PositiveReal,
    Real,
    Seed,
    Strict,
    UserError,
)
from miniwin.blocks.user_path import any_name, user_path

__all__ = [
    "MOST_TOKENS",
    "Budget",
    "Count",
    "Fraction",
    "Grown",
    "PositiveInt",
    "PositiveReal",
    "Real",
    "Seed",
    "Strict",
    "UserError",
    "any_name",
    "user_path",
]
