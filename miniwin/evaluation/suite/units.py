"""The units of a suite's rows: how a value is written, and what its axis looks like. One row a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miniwin.display.formats import bits_text, bytes_text, digits_text, percent_text


@dataclass(frozen=True)
class Unit:
    """text: of a value, and of how many more digits are wanted. spans: numbers that an axis of it always shows.

    aside: what is said and drawn of another row says most of it already; its charts are folded up.
    """

    text: Callable[..., str]
    axis: str = ""  # what the axis is called; empty: the unit's name
    log: bool = False
    binary: bool = False
    spans: tuple[float, ...] = ()
    aside: bool = False


def brief_seconds(value: float, more: int = 0) -> str:
    """`1.23 s`, `45.6 ms`, `789 us`: three digits that matter."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if abs(value) >= unit * 0.9995:
            return f"{digits_text(value / unit, more)} {name}"
    return f"{digits_text(value / 1e-6, more)} us"


UNITS = {
    "share": Unit(percent_text, "share answered right", spans=(0.0, 1.0)),
    "bits/byte": Unit(bits_text, "bits per byte"),
    "nats/answer": Unit(bits_text, "nats per answer", aside=True),
    "bytes": Unit(bytes_text, log=True, binary=True),
    "seconds": Unit(brief_seconds, log=True),
    "exponent": Unit(bits_text),
}
PLAIN = Unit(digits_text)


def unit_of(name: str) -> Unit:
    """How a unit is shown; one that is not known is shown as a plain number."""
    return UNITS.get(name, PLAIN)
