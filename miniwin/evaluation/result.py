"""What an evaluation found, in a form that goes into JSON and comes back equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from miniwin.files.writing import finite
from miniwin.specs import UserError

_BY_LENGTH = {"loss": float, "bits_per_byte": float, "recall": float, "cache_bytes": int}


@dataclass(frozen=True)
class Metrics:
    """Measurements of one model on one validation split.

    `loss` and `bits_per_byte` are the same numbers in nats and in bits. Every length is measured on the same
    `tokens` predicted tokens. `by_position` splits the bits per byte of the longest length by position in the window
    ("128-256" means 128 <= position < 256). `recall` is the share of associative-recall queries answered
    right. `cache_bytes` is what the caches of one sequence take. Speeds are for one sequence of
    `speed_length` tokens on `device`.
    """

    model: str
    parameters: int
    data: dict[str, Any] = field(default_factory=dict)  # Corpus.describe()
    tokens: int = 0
    loss: dict[int, float] = field(default_factory=dict)  # length -> nats per byte
    bits_per_byte: dict[int, float] = field(default_factory=dict)  # length -> bits per byte
    by_position: dict[str, float] = field(default_factory=dict)  # "start-end" -> bits per byte, at the longest length
    recall: dict[int, float] = field(default_factory=dict)  # length -> accuracy, 0 to 1
    cache_bytes: dict[int, int] = field(default_factory=dict)  # length -> bytes
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    speed_length: int | None = None
    device: str = "cpu"
    parts: dict[str, dict[int, float]] = field(default_factory=dict)  # of a mixture: part -> length -> bits per byte

    def to_dict(self) -> dict[str, Any]:
        """The numbers in a form for `json.dumps(..., allow_nan=False)`: keys are text, NaN and infinity are None."""
        plain: dict[str, Any] = finite(asdict(self))
        if not self.parts:
            del plain["parts"]  # as before there were mixtures
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_dict`. A loss of None comes back as NaN.

        Raises:
            UserError: a field is unknown, or the model or its parameters are missing.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise UserError(f"metrics: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
        if missing := sorted({"model", "parameters"} - set(data)):
            raise UserError(f"metrics: field {missing[0]!r} is missing")
        values = dict(data)
        for name, kind in _BY_LENGTH.items():
            if name in values:
                values[name] = {int(length): _number(value, kind) for length, value in values[name].items()}
        for name, losses in values.get("parts", {}).items():
            values["parts"] = {**values["parts"], name: {int(n): _number(loss, float) for n, loss in losses.items()}}
        if "by_position" in values:
            values["by_position"] = {bucket: _number(value, float) for bucket, value in values["by_position"].items()}
        return cls(**values)


def _number(value: float | None, kind: type[float] | type[int]) -> float | int:
    return math.nan if value is None else kind(value)
