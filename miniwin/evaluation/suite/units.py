"""The units of a suite's rows: how a value is written, and what its axis looks like. One row a unit."""

from __future__ import annotations

import math
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
    difference: Callable[[float], str] | None = None  # None: as a value
    aside: bool = False


def brief_seconds(value: float, more: int = 0) -> str:
    """`1.23 s`, `45.6 ms`, `789 us`: three digits that matter."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if abs(value) >= unit * 0.9995:
            return f"{digits_text(value / unit, more)} {name}"
    return f"{digits_text(value / 1e-6, more)} us"


def share_text(value: float, more: int = 0) -> str:
    """`12.5%`, of 0.125; and `0.001%`, of the chance to guess five digits."""
    return percent_text(value, more) if not 0 < value < 5e-4 else f"{100 * value:.1g}%"


def points(value: float) -> str:
    """`2.1 points`, of 0.021: the difference of two percentages."""
    return f"{100 * value:.1f} points"


UNITS = {
    "share": Unit(share_text, "share answered right", spans=(0.0, 1.0), difference=points),
    "bits/byte": Unit(bits_text, "bits per byte"),
    "nats/answer": Unit(bits_text, "nats per answer", aside=True),
    "bytes": Unit(bytes_text, log=True, binary=True),
    "seconds": Unit(brief_seconds, log=True),
    "exponent": Unit(bits_text),
}
PLAIN = Unit(digits_text)


def signed(name: str, value: float, *limits: float) -> str:
    """A difference in a unit, with its limits: `+0.012 [-0.003, +0.027]`, `+2.1 [-0.5, +4.7] points`."""
    unit = unit_of(name)
    texts = ["?" if math.isinf(one) else _signed(unit, one) for one in (value, *limits)]
    after = {text.partition(" ")[2] for text in texts if text != "?"}
    common = f" {after.pop()}" if len(after) == 1 and "" not in after else ""
    first, *rest = [text.removesuffix(common) for text in texts]
    return first + (f" [{', '.join(rest)}]" if rest else "") + common


def _signed(unit: Unit, value: float) -> str:
    return f"{'-' if value < 0 else '+'}{(unit.difference or unit.text)(abs(value))}"


def unit_of(name: str) -> Unit:
    """How a unit is shown; one that is not known is shown as a plain number."""
    return UNITS.get(name, PLAIN)
