"""Paths that a person gives: `~` is a home folder everywhere. A shell expands `~` in some places only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniwin.blocks.spec import UserError


def user_path(given: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~name` expanded.

    Raises:
        UserError: the home folder is not known, and no file here is named `~` (or `~name`).
    """
    text = os.fspath(given)
    if not text.startswith("~"):
        return Path(text)
    expanded = os.path.expanduser(text)
    first = Path(text).parts[0]
    if expanded == text and not os.path.lexists(first):
        whose = f"user {first[1:]!r} is not known here" if len(first) > 1 else "your home folder is not known (no HOME)"
        raise UserError(f"{text}: {whose}, so {first} stands for no folder; write the whole path, or ./{text}")
    return Path(expanded)


def any_name(value: Any, check: Callable[[Any], Any]) -> Any:
    """Validate the name of a file, which may hold bytes that are not UTF-8 (in Python, surrogates)."""
    if isinstance(value, str) and any("\udc80" <= letter <= "\udcff" for letter in value):
        return value
    return check(value)
