"""The nearest known name to a misspelt one: what every "did you mean" says."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like a misspelt name; None if no name is like it enough.

    cutoff: the likeness that is enough, from 0 (any name) to 1 (the same name).
    """
    close = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return close[0] if close else None


def near(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: the nearest known name, or the list of all names."""
    close = nearest(name, known)
    return f"did you mean '{close}'?" if close else f"known: {', '.join(sorted(known))}"
