"""Charts as inline SVG: a scatter, a line chart and a bar chart, a few kilobytes each, drawn without any library.

A chart is a string to put into a page. It has no colours and no fonts: every mark has a class, and the page's style
sheet (style.py) paints the class, in light and in dark. A chart has a title and a description for people who cannot see
it, and every point has a tooltip. All text that is given is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from html import escape

from miniwin.display.page.axes import BOTTOM, HEIGHT, TOP, WIDTH, Axis, drawable, frame, svg_chart, svg_text


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    kind: str  # CSS class: what the point is
    tooltip: str
    href: str | None = None
    label: str | None = None  # written next to the point
    square: bool = False  # a second shape, so that nothing is told apart by colour alone


@dataclass(frozen=True)
class Series:
    kind: str  # CSS class
    points: Sequence[tuple[float, float]]
    tooltips: Sequence[str] = ()
    square: bool = False
    markers: bool = True
    intervals: Sequence[tuple[float, float]] = ()  # (low, high) of each point; not finite: none is drawn
    band: bool = False  # the intervals as one area, besides the whiskers
    aside: float = 0.0  # how far to the right all of it is drawn, so that several series do not cover each other


def scatter(
    points: Sequence[Point],
    *,
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    ident: str,
    front: Sequence[tuple[float, float]] = (),
) -> str:
    """Points in a plane, with a line along the front. Values that are not finite, or on a log axis not positive, are
    left out."""
    shown = [p for p in points if drawable(p.x, x) and drawable(p.y, y)]
    if not shown:
        return ""
    behind, to_x, to_y = frame([p.x for p in shown], [p.y for p in shown], x, y)
    marks = [behind]
    line = [(a, b) for a, b in front if drawable(a, x) and drawable(b, y)]
    if len(line) > 1:
        marks.append(_polyline([(to_x(a), to_y(b)) for a, b in line], "front"))
    for p in shown:
        mark = _marker(to_x(p.x), to_y(p.y), p.kind, p.tooltip, p.square)
        marks.append(f'<a href="{escape(p.href)}" tabindex="-1">{mark}</a>' if p.href else mark)
    for p in shown:  # labels last: nothing is drawn over them
        if p.label:
            marks.append(_label(to_x(p.x), to_y(p.y), p.label))
    return svg_chart("".join(marks), title, description, ident)


def lines(
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    ident: str,
    marks: Sequence[tuple[float, str]] = (),
    levels: Sequence[tuple[float, str]] = (),
) -> str:
    """One line for each series. `marks` are vertical rules with a word beside them, `levels` horizontal ones."""
    kept = [(s, [n for n, (a, b) in enumerate(s.points) if drawable(a, x) and drawable(b, y)]) for s in series]
    values = [s.points[n] for s, indices in kept for n in indices]
    if not values:
        return ""
    rules = [(at, word) for at, word in marks if drawable(at, x)]
    heights = [(at, word) for at, word in levels if drawable(at, y)]
    ends = [end for s, indices in kept for n in indices for end in _interval(s, n, y) or ()]
    across = [a for a, _ in values] + [at for at, _ in rules]
    behind, to_x, to_y = frame(across, [b for _, b in values] + ends + [at for at, _ in heights], x, y)
    out = [behind]
    for at, word in rules:
        px = to_x(at)
        left = px > WIDTH * 0.6
        out.append(f'<line class="rule" x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(svg_text("word", px + (-5 if left else 5), TOP + 11, word, "end" if left else ""))
    for at, _ in heights:
        py = to_y(at)
        out.append(f'<line class="rule" x1="{to_x.start:.1f}" y1="{py:.1f}" x2="{to_x.end:.1f}" y2="{py:.1f}"/>')
    for s, indices in kept:
        places = [(to_x(s.points[n][0]) + s.aside, to_y(s.points[n][1])) for n in indices]
        spans = [
            (px, to_y(i[0]), to_y(i[1]))
            for n, (px, _) in zip(indices, places, strict=True)
            if (i := _interval(s, n, y))
        ]
        if s.band and len(spans) > 1:
            edge = [(px, low) for px, low, _ in spans] + [(px, high) for px, _, high in reversed(spans)]
            out.append(f'<polygon class="band {escape(s.kind)}" points="{_path(edge)}"/>')
        out += [f'<path class="span {escape(s.kind)}" d="M{px:.1f} {low:.1f}V{high:.1f}"/>' for px, low, high in spans]
        if len(places) > 1:
            out.append(_polyline(places, s.kind))
        if s.markers:
            for n, (px, py) in zip(indices, places, strict=True):
                tooltip = s.tooltips[n] if n < len(s.tooltips) else ""
                out.append(_marker(px, py, s.kind, tooltip, s.square))
    # Words last: nothing is drawn over them.
    out += [svg_text("word", to_x.end, to_y(at) - 5, word, "end") for at, word in heights]
    return svg_chart("".join(out), title, description, ident)


def _interval(series: Series, n: int, y: Axis) -> tuple[float, float] | None:
    interval = series.intervals[n] if n < len(series.intervals) else None
    return interval if interval is not None and all(drawable(end, y) for end in interval) else None


def bars(
    rows: Sequence[tuple[str, float]],
    *,
    title: str,
    description: str,
    ident: str,
    format: Callable[[float], str] = "{:g}".format,
    spans: Sequence[tuple[float, float]] = (),
    hollow: Collection[str] = (),
) -> str:
    """Horizontal bars from zero, the largest across the picture, each under its name and before its number.

    spans: (low, high) of each bar. hollow: the names of bars that are drawn as an outline.
    """
    if not rows:
        return ""
    pitch, thick = 40, 12
    height = pitch * len(rows) + 4
    room = WIDTH - 64
    largest = max([value for _, value in rows] + [high for _, high in spans]) or 1.0
    out = []
    for n, (name, value) in enumerate(rows):
        top = n * pitch + 4
        length = max(value / largest * room, 1.0)
        kind = "bar hollow" if name in hollow else "bar first" if n == 0 else "bar"
        out.append(svg_text("tick", 0, top + 11, name))
        out.append(f'<rect class="{kind}" x="0" y="{top + 18}" width="{length:.1f}" height="{thick}" rx="2"/>')
        end = length
        if n < len(spans):
            low, end = (max(edge / largest * room, 0.0) for edge in spans[n])
            out.append(f'<path class="reach" d="M{low:.1f} {top + 20}v8m0 -4H{end:.1f}m0 -4v8"/>')
        out.append(svg_text("number", max(length, end) + 8, top + 28, format(value)))
    return svg_chart("".join(out), title, description, ident, height)


def _polyline(places: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<polyline class="line {escape(kind)}" points="{_path(places)}"/>'


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{px:.1f},{py:.1f}" for px, py in places)


def _marker(px: float, py: float, kind: str, tooltip: str, square: bool) -> str:
    hint = f"<title>{escape(tooltip)}</title>" if tooltip else ""
    look = f'class="mark {escape(kind)}"'
    if square:
        return f'<rect {look} x="{px - 5:.1f}" y="{py - 5:.1f}" width="10" height="10">{hint}</rect>'
    return f'<circle {look} cx="{px:.1f}" cy="{py:.1f}" r="5">{hint}</circle>'


def _label(px: float, py: float, text: str) -> str:
    """Beside the point, on the side where there is room."""
    left = px > WIDTH * 0.62
    above = py >= TOP + 20
    return svg_text("word", px + (-9 if left else 9), py + (-8 if above else 18), text, "end" if left else "")
