"""What a card says that was measured: the results of its `model-index`, as the Hugging Face Hub reads them.

Anybody may have written a card. A result that is not of the form is passed over, and nothing here runs or renders it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from miniwin.evaluation.suite.units import unit_of
from miniwin.specs import UserError
from miniwin.specs.lengths import LONGEST as LONGEST_LENGTH
from miniwin.specs.yaml_document import Document
from miniwin.zoo.card_check import FRONT, LONGEST
from miniwin.zoo.errors import ZooError

UNITS = {"bits_per_byte": "bits/byte", "recall": "share"}  # of what metrics.json holds, which has no unit
COSTS = ("bytes", "seconds", "exponent")  # units that say nothing of how well a model does
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Score:
    """A value at a length. low, high: the 95 % interval, and n: of how many examples or documents; None where the card
    does not say. chance: what guessing gives."""

    task: str
    length: int | None
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None

    @property
    def is_cost(self) -> bool:
        return self.unit in COSTS

    def text(self) -> str:
        """`99.5% [97.4%, 99.9%], n 128`."""
        write = unit_of(self.unit).text
        interval = "" if self.low is None or self.high is None else f" [{write(self.low)}, {write(self.high)}]"
        return write(self.value) + interval + ("" if self.n is None else f", n {self.n:,}")


def scores_of(card: str, ref: str) -> list[Score]:
    """The scores of a card, each task at each length once. ref: for messages.

    Raises:
        ZooError: the card is too long, or its front matter is not YAML.
    """
    if len(card) > LONGEST:
        raise ZooError(f"{ref}: its card is longer than {LONGEST:,} characters")
    front = FRONT.match(card)
    if front is None:
        return []
    try:
        data = Document(front[1], f"{ref}: front matter of the card").data
    except UserError as error:
        raise ZooError(" ".join(str(error).split())[:300]) from None
    found: dict[tuple[str, int | None], Score] = {}
    for metric in _metrics(data):
        score = _score(metric)
        if score is not None:
            key = score.task, score.length
            if key not in found or (found[key].n is None and score.n is not None):  # the one that says more
                found[key] = score
    return sorted(found.values(), key=lambda one: (one.task, one.length or 0))


def _metrics(data: Any) -> list[dict[str, Any]]:
    models = data.get("model-index") if isinstance(data, dict) else None
    results = [result for model in _mappings(models) for result in _mappings(model.get("results"))]
    return [metric for result in results for metric in _mappings(result.get("metrics"))]


def _score(metric: dict[str, Any]) -> Score | None:
    task, value, args = metric.get("type"), _number(metric.get("value")), metric.get("args")
    args = args if isinstance(args, dict) else {}
    if not isinstance(task, str) or not _TASK.fullmatch(task) or value is None:
        return None
    unit = args.get("unit")
    low, high = _number(args.get("low")), _number(args.get("high"))
    return Score(
        task,
        _whole(args.get("length"), LONGEST_LENGTH),
        value,
        unit if isinstance(unit, str) else UNITS.get(task, ""),
        low if high is not None else None,
        high if low is not None else None,
        _whole(args.get("n"), 10**15),
        _number(args.get("chance")),
    )


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    known = type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e100
    return float(value) if known else None


def _whole(value: Any, most: int) -> int | None:
    return value if type(value) is int and 0 < value <= most else None
