"""Numbers as people read them: bytes, counts, durations, and the unit of each objective.

`more` asks for so many more digits than usual: numbers close together must be told apart on an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from miniwin.search.svg import Axis
from miniwin.specs.search import SOUNDNESS, Objective

LN2 = math.log(2)


def bytes_text(value: float, more: int = 0) -> str:
    """`640 B`, `2.1 MiB`, `1 GiB`."""
    unit = _binary_unit(value)
    return f"{_short(value / unit, more)} {_BINARY[unit]}"


def count_text(value: float, more: int = 0) -> str:
    """`512`, `4,096`, `1.18 M`, `3.2 G`: exact below ten thousand."""
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{4 + more}g}"
    for unit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit * 0.9995:
            return f"{_short(value / unit, more)} {letter}"
    raise AssertionError(value)


def length_text(value: float, more: int = 0) -> str:
    """A number of tokens on an axis: `512`, `4k`, `128k`, `1M` (binary, as context lengths are); always exact."""
    for unit, letter in ((2**20, "M"), (2**10, "k")):
        if value >= unit and value % unit == 0:
            return f"{value / unit:.0f}{letter}"
    return f"{value:.0f}"


def seconds_text(value: float) -> str:
    """`8.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def known(value: float | None) -> float:
    """A stored number, where JSON's null stands for one that is not finite."""
    return math.nan if value is None else float(value)


def bits_text(value: float, more: int = 0) -> str:
    return f"{value:.{3 + more}f}"


def percent_text(value: float, more: int = 0) -> str:
    return f"{value:.{1 + more}%}"


def digits_text(value: float, more: int = 0) -> str:
    """Three digits that matter."""
    return f"{value:.{3 + more}g}"


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Measure:
    """How an objective is shown: its name, the factor from what is stored, and how its numbers are written."""

    title: str
    text: Callable[..., str]  # of a value, and how many more digits are wanted
    factor: float = 1.0
    lower_is_better: bool = True
    binary: bool = False

    def axis(self, values: Sequence[float]) -> Axis:
        """An axis for these (shown) values: by powers of two where sizes differ several times over."""
        positive = [v for v in values if v > 0]
        largest, smallest = max(positive, default=1.0), min(positive, default=1.0)
        unit = float(_binary_unit(largest)) if self.binary else 1.0
        return Axis(self.title, self.text, log=self.binary and largest / smallest >= 4, unit=unit)


def measure(objective: Objective) -> Measure:
    """Losses are stored in nats per byte and shown in bits per byte."""
    at = f" at {objective.length:,} tokens" if objective.length else ""
    lower = objective.direction == "minimize"
    if objective.metric == "loss":
        return Measure(f"bits per byte{at}", bits_text, 1 / LN2, lower)
    if objective.metric == "bits_per_byte":
        return Measure(f"bits per byte{at}", bits_text, 1.0, lower)
    if objective.metric == "recall":
        return Measure(f"recall{at}", percent_text, 1.0, lower)
    if objective.metric == "cache_bytes":
        return Measure(f"cache{at}", bytes_text, 1.0, lower, binary=True)
    if objective.metric == "decode_tokens_per_second":
        return Measure("tokens decoded per second", count_text, 1.0, lower)
    if objective.metric in ("forward_flops", "training_flops"):
        which = objective.metric.removesuffix("_flops")
        return Measure(f"{which} FLOPs per token{at}", count_text, 1.0, lower)
    if objective.metric in SOUNDNESS:
        which = objective.metric.removeprefix("rope_").replace("_", " ")
        return Measure(f"RoPE {which}{at} (1 is the bound)", digits_text, 1.0, lower)
    return Measure(objective.name.replace("_", " "), count_text, 1.0, lower)


_BINARY = {1: "B", 2**10: "KiB", 2**20: "MiB", 2**30: "GiB", 2**40: "TiB"}


def _binary_unit(value: float) -> int:
    return max((unit for unit in _BINARY if abs(value) >= unit * 0.9995), default=1)


def _short(value: float, more: int = 0) -> str:
    """Three digits that matter: 1.18, 16.5, 640."""
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    text = f"{value:.{decimals + more}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
