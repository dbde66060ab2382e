"""How an objective is shown: its name, its unit, and how its numbers are written.

`more` asks for so many more digits than usual: numbers close together must be told apart on an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from miniwin.display.formats import binary_unit, bytes_text, count_text
from miniwin.search.report.svg import Axis
from miniwin.specs.search import SOUNDNESS, Objective

LN2 = math.log(2)


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
        unit = float(binary_unit(largest)) if self.binary else 1.0
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
