"""Reading metrics by length: JSON makes text of the integer keys, and a length may not have been measured."""

from __future__ import annotations

from typing import Any


def by_length(metrics: dict[str, Any], key: str) -> dict[int, Any]:
    """`{"512": 2.1, "2048": None}` -> `{512: 2.1}`, in order of length."""
    values = metrics.get(key) or {}
    return {int(n): values[n] for n in sorted(values, key=int) if values[n] is not None}


def training_length(provenance: dict[str, Any]) -> int | None:
    """`seq_len` of the training spec that the run recorded."""
    length: int | None = ((provenance.get("run") or {}).get("train") or {}).get("seq_len")
    return length


def format_bytes(count: float) -> str:
    """`812 B`, `4.1 kB`, `3.9 MB`: decimal units, as disks and the Hub count."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
