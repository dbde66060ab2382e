"""The charts of suites: each measure against length, one line a model, with intervals, chance and training lengths.

A chart goes by a row's unit and by what the row holds, never by the name of a task. Lines differ in dashes as well as
in colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from miniwin.display.formats import binary_unit, length_text, plural
from miniwin.display.page.axes import Axis
from miniwin.display.page.figures import figure, stroke
from miniwin.display.page.heat import Cell, heat_map
from miniwin.display.page.svg import Point, Series, lines, scatter
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.evaluation.suite.samples import losses
from miniwin.evaluation.suite.units import unit_of

APART = 5.0  # units between the marks of two models at one length


@dataclass(frozen=True)
class Shown:
    """A result on a page. name: what the page calls its model. kind: the class of its marks."""

    result: SuiteResult
    name: str
    kind: str = "m0"


def measures(results: Iterable[Shown]) -> list[str]:
    """The measures that have a value at some length, in the order of the suite."""
    rows = [row for shown in results for row in shown.result.rows if row.length is not None and row.value is not None]
    return list(dict.fromkeys(row.measure for row in rows))


def titled(measure: str) -> str:
    """How a measure is called where it is not a key: `bits per byte`."""
    return measure.replace("_", " ")


def rows_of(result: SuiteResult, measure: str) -> list[SuiteRow]:
    """The rows of a measure that have a length and a value, from the shortest."""
    found = [r for r in result.rows if r.measure == measure and r.length is not None and r.value is not None]
    return sorted(found, key=lambda row: row.length or 0)


def is_aside(results: Iterable[Shown], measure: str) -> bool:
    """Whether the charts of a measure are folded up."""
    return any(unit_of(row.unit).aside for shown in results for row in rows_of(shown.result, measure))


def by_length(results: Sequence[Shown], measure: str) -> str:
    """The figure of a measure: its value at each length."""
    kept = [(shown, rows_of(shown.result, measure)) for shown in results]
    kept = [(shown, rows) for shown, rows in kept if rows]
    if not kept:
        return ""
    everything = [row for _, rows in kept for row in rows]
    first = everything[0]
    unit = unit_of(first.unit)
    series = [
        Series(
            shown.kind,
            [(float(row.length or 0), value_of(row)) for row in rows],
            [f"{shown.name}: {row_text(row)} at {row.length:,} tokens" for row in rows],
            intervals=[(limit(row.low), limit(row.high)) for row in rows],
            band=len(kept) == 1,
            aside=(n - (len(kept) - 1) / 2) * APART,
        )
        for n, (shown, rows) in enumerate(kept)
    ]
    chances = sorted({row.chance for row in everything if row.chance is not None})
    blinds = sorted({row.blind for row in everything if row.blind is not None})
    trained = sorted({shown.result.model.trained_length for shown, _ in kept} - {None}, key=lambda n: n or 0)
    values = [value_of(row) for row in everything]
    axis = Axis(
        unit.axis or first.unit,
        unit.text,
        log=unit.log and max(values) >= 4 * min(values) > 0,
        unit=float(binary_unit(max(values))) if unit.binary else 1.0,
        spans=unit.spans,
    )
    chart = lines(
        series,
        x=Axis("length, tokens", length_text, log=True, ticks=sorted({float(row.length or 0) for row in everything})),
        y=axis,
        marks=[(float(n), "trained at" if len(trained) == 1 else "") for n in trained if n],
        levels=[*((chance, "chance") for chance in chances), *((blind, "blind") for blind in blinds)],
        title=f"{titled(measure)}: {axis.label} against length",
        description=described(kept, first),
        ident=f"length-{measure}",
    )
    return figure(chart, legend([shown for shown, _ in kept], results), note_of(first))


def legend(drawn: Sequence[Shown], results: Sequence[Shown]) -> str:
    """Which line is which model's; nothing on a page about one model."""
    return "".join(stroke(shown.kind, shown.name) for shown in drawn) if len(results) > 1 else ""


def described(kept: Sequence[tuple[Shown, Sequence[SuiteRow]]], first: SuiteRow) -> str:
    """The chart in words, for people who cannot see it."""
    said = [f"{shown.name}: " + ", ".join(f"{row_text(row)} at {row.length:,}" for row in rows) for shown, rows in kept]
    return ". ".join([*said, *([f"Chance is {unit_of(first.unit).text(first.chance)}"] if first.chance else [])]) + "."


def note_of(row: SuiteRow) -> str:
    better = {"higher": "Higher is better. ", "lower": "Lower is better. ", None: ""}[row.better]
    exact = row.low == row.high
    return f"{better}{'Exact.' if exact else f'Bars: 95 % intervals, from {row.n:,} {row.of} at each length.'}"


def by_position(results: Sequence[Shown], measure: str) -> str:
    """The figure of a measure whose longest row has buckets of positions: its value in each part of the text."""
    found: list[tuple[Shown, SuiteRow, list[dict[str, float]]]] = []
    for shown in results:
        rows = [row for row in rows_of(shown.result, measure) if row.detail.get("buckets")]
        if rows:
            found.append((shown, rows[-1], rows[-1].detail["buckets"]))
    if not found:
        return ""
    row = found[0][1]
    unit = unit_of(row.unit)
    series: list[Series] = []
    said: list[str] = []
    for shown, _, buckets in found:
        texts = [f"{unit.text(one['value'])} at {one['start']:,} to {one['end']:,}" for one in buckets]
        series.append(
            Series(
                shown.kind,
                [((one["start"] + one["end"]) / 2, one["value"]) for one in buckets],
                [f"{shown.name}: {text}" for text in texts],
                intervals=[(limit(one.get("low")), limit(one.get("high"))) for one in buckets],
                band=len(found) == 1,
                aside=(len(series) - (len(found) - 1) / 2) * APART,
            )
        )
        said.append(f"{shown.name}: {', '.join(texts)}.")
    chart = lines(
        series,
        x=Axis(
            "position in the text, tokens",
            length_text,
            log=True,
            ticks=sorted({float(one["end"]) for _, _, buckets in found for one in buckets}),
        ),
        y=Axis(unit.axis or row.unit, unit.text),
        title=f"{titled(measure)} by position, in texts of {row.length:,} tokens",
        description=" ".join(said),
        ident=f"position-{measure}",
    )
    keys = legend([shown for shown, _, _ in found], results)
    return figure(chart, keys, f"By position, in texts of {row.length:,} tokens. Buckets double.")


def spread(shown: Shown, measure: str) -> str:
    """The figure of a loss: each document at each length, around the loss of all."""
    points: list[Point] = []
    said: list[str] = []
    lengths: list[float] = []
    for row in rows_of(shown.result, measure):
        found = losses(row) if row.of == "documents" else None
        if found is None or row.length is None:
            continue
        nats, units, factor = found
        text, each, lengths = unit_of(row.unit).text, factor * nats / units, [*lengths, float(row.length)]
        points += [
            Point(float(row.length), loss, "complete", f"document {n}: {text(loss)} at {row.length:,} tokens")
            for n, loss in enumerate(each.tolist(), 1)
        ]
        points.append(Point(float(row.length), value_of(row), "best", f"all: {row_text(row)}", square=True))
        said.append(f"{plural(len(each), 'document')} from {text(each.min())} to {text(each.max())} at {row.length:,}")
    if not points:
        return ""
    row = rows_of(shown.result, measure)[0]
    unit = unit_of(row.unit)
    chart = scatter(
        points,
        x=Axis("length, tokens", length_text, log=True, ticks=lengths),
        y=Axis(unit.axis or row.unit, unit.text),
        title=f"{titled(measure)} of each document",
        description=f"{', '.join(said)}.",
        ident=f"spread-{measure}",
    )
    return figure(chart, "", "A grey dot for each document, a square for all of them together.")


def heat(shown: Shown, measure: str) -> str:
    """The figure of a task whose facts lie at a depth: the value by length and depth."""
    rows = [row for row in rows_of(shown.result, measure) if row.detail.get("depths")]
    if not rows:
        return ""
    parts = sorted({(cell["start"], cell["end"]) for row in rows for cell in row.detail["depths"]})
    text = unit_of(rows[0].unit).text
    table, said = [], []
    for start, end in parts:
        cells = [next((c for c in row.detail["depths"] if c["start"] == start), None) for row in rows]
        where = f"{start:.0%}-{end:.0%}"
        table.append([_depth_cell(cell, row, where) for cell, row in zip(cells, rows, strict=True)])
        known = [f"{text(c['value'])} at {row.length:,}" for c, row in zip(cells, rows, strict=True) if c is not None]
        said.append(f"{where}: {', '.join(known) or 'nothing'}")
    chart = heat_map(
        table,
        rows=[f"{start:.0%}-{end:.0%}" for start, end in parts],
        columns=[length_text(row.length or 0) for row in rows],
        x="length, tokens",
        y="depth of the fact in the text",
        title=f"{titled(measure)} by length and depth",
        description=f"By depth: {'; '.join(said)}.",
        ident=f"heat-{measure}",
        text=text,
    )
    return figure(chart, "", "By where the fact lies: 0% is the start of the text. A dashed cell had no example.")


def _depth_cell(cell: dict[str, Any] | None, row: SuiteRow, where: str) -> Cell:
    if cell is None:
        return Cell(math.nan, f"depth {where}, {row.length:,} tokens: no example")
    text = unit_of(row.unit).text
    ends = ", ".join("?" if cell.get(end) is None else text(cell[end]) for end in ("low", "high"))
    said = f"{text(cell['value'])} [{ends}] of {plural(cell['n'], 'example')}"
    return Cell(float(cell["value"]), f"depth {where}, {row.length:,} tokens: {said}")


def row_text(row: SuiteRow) -> str:
    """`0.984 [0.951, 0.995]`, or only the value where it is exact, `unknown` where there is none."""
    if row.value is None:
        return "unknown"
    text = unit_of(row.unit).text
    return text(row.value) if row.low == row.high and row.low is not None else f"{text(row.value)} {interval_text(row)}"


def interval_text(row: SuiteRow) -> str:
    """`[0.951, 0.995]`; `exact`; `[?, ?]` where too little was measured for limits."""
    if row.value is None:
        return ""
    if row.low is not None and row.low == row.high:
        return "exact"
    text = unit_of(row.unit).text
    return f"[{', '.join('?' if end is None else text(end) for end in (row.low, row.high))}]"


def value_of(row: SuiteRow) -> float:
    return math.nan if row.value is None else row.value


def limit(value: float | None) -> float:
    return math.nan if value is None else value
