"""What an entry's files say that was measured, for its page and for the index: from suite.json, else metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from miniwin.display.formats import bits_text, length_text, percent_text
from miniwin.display.page.axes import Axis
from miniwin.display.page.figures import figure
from miniwin.display.page.svg import Series, lines
from miniwin.evaluation.suite.charts import rows_of
from miniwin.zoo.card_values import by_length
from miniwin.zoo.catalogue.described import Described

LOSS = "bits_per_byte"
LOWER, HIGHER = "Lower is better.", "Higher is better."


@dataclass(frozen=True)
class Losses:
    """Bits per byte by length in tokens. text: what was read, where that is known."""

    values: dict[int, float]
    text: str


def losses(entry: Described) -> Losses:
    """Of the suite, which has intervals, where it measured a loss. Raises ZooError."""
    result = entry.suite
    if result is not None and (rows := rows_of(result, LOSS)):
        values = {row.length: row.value for row in rows if row.length is not None and row.value is not None}
        return Losses(values, str((result.data or {}).get("source") or ""))
    values = by_length(entry.metrics, LOSS)
    return Losses(values, str((entry.metrics.get("data") or {}).get("source") or "") if values else "")


def metric_figures(entry: Described) -> list[tuple[str, str]]:
    """Title and figure of each part of metrics.json that the suite does not have."""
    metrics, trained, result = entry.metrics, entry.trained_at, entry.suite
    found = []
    if result is None or not rows_of(result, LOSS):
        found.append(("Bits per byte", _figure(by_length(metrics, LOSS), trained, "bits per byte", bits_text, LOWER)))
        found.append(("Bits per byte by position", _by_position(metrics)))
    if result is None or not rows_of(result, "recall"):
        shares = by_length(metrics, "recall")
        found.append(("Recall", _figure(shares, trained, "share answered right", percent_text, HIGHER, (0.0, 1.0))))
    return [(title, chart) for title, chart in found if chart]


def _figure(
    values: dict[int, float], trained: int | None, label: str, text: Any, better: str, spans: tuple[float, ...] = ()
) -> str:
    if not values:
        return ""
    said = [f"{text(value)} at {length:,} tokens" for length, value in values.items()]
    chart = lines(
        [Series("m0", [(float(length), value) for length, value in values.items()], said)],
        x=Axis("length, tokens", length_text, log=True, ticks=[float(length) for length in values]),
        y=Axis(label, text, spans=spans),
        marks=[(float(trained), "trained at")] if trained else [],
        title=f"{label} against length",
        description=f"{'; '.join(said)}.",
        ident=f"metrics-{label.replace(' ', '-')}",
    )
    return figure(chart, "", f"{better} From metrics.json, which has no intervals.")


def _by_position(metrics: dict[str, Any]) -> str:
    """Bits per byte in each part of the text, whose parts are called `512-1024`."""
    found: list[tuple[int, int, float]] = []
    for span, value in (metrics.get("by_position") or {}).items():
        start, _, end = span.partition("-")
        if value is not None and start.isdecimal() and end.isdecimal() and 0 <= int(start) < int(end) < 1 << 40:
            found.append((int(start), int(end), value))
    if not found:
        return ""
    said = [f"{bits_text(value)} at {start:,} to {end:,}" for start, end, value in found]
    chart = lines(
        [Series("m0", [((start + end) / 2, value) for start, end, value in found], said)],
        x=Axis(
            "position in the text, tokens", length_text, log=True, ticks=sorted({float(end) for _, end, _ in found})
        ),
        y=Axis("bits per byte", bits_text),
        title="bits per byte by position in the text",
        description=f"{'; '.join(said)}.",
        ident="metrics-by-position",
    )
    return figure(chart, "", "By position in the longest texts. Buckets double.")
