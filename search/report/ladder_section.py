"""A ladder on a page: loss against compute as a chart, and the tables of the ladder."""

from __future__ import annotations

import math
from html import escape

from miniwin.display.formats import bits_text
from miniwin.display.page import svg
from miniwin.display.page.axes import Axis
from miniwin.display.page.figures import figure, stroke
from miniwin.search.ladder import tables, words
from miniwin.search.ladder.plan import size_text
from miniwin.search.ladder.result import LadderResult
from miniwin.search.report.confirmation import plain_table
from miniwin.search.report.measures import LN2
from miniwin.search.study_data import StudyData

KINDS = ("m0", "m1", "m2", "m3", "m4", "m5")  # of the lines: the baseline's, then the others
PIECES = 24  # straight ones that a line is drawn with
APART = 9.0  # how far a prediction is drawn beside what came


def sentences(study: StudyData) -> list[str]:
    """What a ladder says, and what is left to do."""
    if study.ladder is None:
        return []
    return [words.full(line.removeprefix("note: ").strip()) for line in words.lines(study.ladder)]


def section(study: StudyData) -> str:
    """The body of the section; empty where there is no ladder that is over."""
    if study.ladder is None or study.ladder.result is None or not study.ladder.current:
        return ""
    return ladder_body(study.ladder.result)


def ladder_body(result: LadderResult) -> str:
    """The body of the section."""
    parts = [f'<p class="note">{escape(words.method(result))}</p>', _chart(result)]
    for title, (heads, rows) in tables.of(result):
        note = words.foretold(result) if title == tables.PREDICTION else ""
        parts.append(f"<h3>{escape(title)}</h3>" + (f'<p class="note">{escape(note)}</p>' if note else ""))
        text = [n for n, head in enumerate(heads) if n == 0 or head in tables.WORDS]
        parts.append(plain_table(title, heads, rows, text=text))
    return "".join(parts)


def _chart(result: LadderResult) -> str:
    """Loss against compute, each variant with its line, and what was predicted of the largest size."""
    series, keys = [], ""
    for place, label in enumerate(reversed(result.labels)):
        kind, square = KINDS[place % len(KINDS)], place == 0
        models = [next(model for model in step.models if model.label == label) for step in result.steps]
        points = [(model.flops, model.losses[str(result.length)] / LN2) for model in models]
        series.append(svg.Series(kind, _line(result, label, points[0][0], points[-1][0]), markers=False))
        for x, y in points:  # each for itself: their line is the fit
            tip = f"{label}: {bits_text(y, 1)} bits per byte after {x:.2e} FLOPs"
            series.append(svg.Series(kind, [(x, y)], [tip], square=square))
        told = next(one.predicted for one in result.held if (one.predicted.first, one.predicted.other) == (label, None))
        if told.value is not None:
            span = (_end(told.low), _end(told.high))
            aside = APART if square else -APART
            tip = f"{label}: predicted {words.bits(told)}"
            at = (points[-1][0], told.value / LN2)
            series.append(svg.Series(kind, [at], [tip], square=square, intervals=[span], aside=aside))
        keys += stroke(kind, label)
    largest = size_text(result.steps[-1].target)
    note = f"Beside the points at {largest}: what was predicted, with its 95 % interval. Lines: the fit of all sizes."
    chart = svg.lines(
        series,
        x=Axis("FLOPs of the training", "{:.1e}".format, log=True, ticks=[s.models[-1].flops for s in result.steps]),
        y=Axis("bits per byte", bits_text),
        title="Bits per byte on the test split against the compute of the training",
        description=f"A line for each of {', '.join(result.labels)}. {note}",
        ident="ladder",
    )
    return figure(chart, keys, note) if chart else ""


def _end(nats: float | None) -> float:
    return math.nan if nats is None else nats / LN2


def _line(result: LadderResult, label: str, low: float, high: float) -> list[tuple[float, float]]:
    """The fitted line of a variant between two amounts of compute."""
    if result.slope.value is None:
        return []
    across = [low * (high / low) ** (n / PIECES) for n in range(PIECES + 1)]
    rest = (math.exp(result.heights[label] - result.slope.value * math.log(x)) for x in across)
    return [(x, (result.floor + y) / LN2) for x, y in zip(across, rest, strict=True)]
