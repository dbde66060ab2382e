"""Charts as inline SVG: a scatter, a line chart and a bar chart, a few kilobytes each, drawn without any library.

A chart is a string to put into a page. It has no colours and no fonts: every mark has a class, and the page's style
sheet (search/report/html.py) paints the class, in light and in dark. A chart has a title and a description for people
who cannot see it, and every point has a tooltip. All text that is given is escaped.

Coordinates are the user units of a WIDTH x HEIGHT view box, which the page scales. The margins leave room for the
larger letters that the style sheet sets on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 480, 300
TOP, RIGHT, BOTTOM = 34, 18, 52
MORE_DIGITS = 12  # more digits than usual, at most, on an axis whose ticks are close together
CHARACTER = 8.0  # width of one character of a tick label, at the size used on a phone


def number_text(value: float, more: int = 0) -> str:
    return f"{value:.{6 + more}g}"


@dataclass(frozen=True)
class Axis:
    """What an axis says: its name, how its numbers are written, and where its ticks are."""

    label: str
    format: Callable[..., str] = number_text  # of a number, and how many more digits are wanted
    log: bool = False  # base 2, for lengths and bytes
    ticks: Sequence[float] | None = None  # None: chosen here
    unit: float = 1.0  # ticks are round multiples of this (2**20 for bytes shown in MiB)


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


def linear_ticks(low: float, high: float, count: int = 5, unit: float = 1.0) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten, times `unit`) from low to high."""
    span = (high - low) / unit
    if not span > 0:
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / unit / step - 1e-9)
    last = math.floor(high / unit / step + 1e-9)
    return [n * step * unit for n in range(first, last + 1)]


def octave_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """At most `count` powers of two from low to high, evenly spaced; round numbers if there are too few powers."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    if last - first < 1:
        return linear_ticks(low, high, count=4, unit=2.0 ** (math.floor(math.log2(low) / 10) * 10))
    stride = math.ceil((last - first + 1) / count)
    return [2.0**e for e in range(first, last + 1) if (e - first) % stride == 0]


class Scale:
    """From a value to a coordinate, with a little air around the values."""

    def __init__(self, values: Iterable[float], start: float, end: float, log: bool = False) -> None:
        self.log = log
        inside = [self._flat(v) for v in values]
        low, high = min(inside), max(inside)
        # A single value needs an axis around it, too, and so do values that no tick could tell apart.
        apart = high - low > 1e-9 * max(abs(low), abs(high))
        pad = (high - low) * 0.06 if apart else (0.5 if log else abs(high) * 0.05 or 1.0)
        self.low, self.high, self.start, self.end = low - pad, high + pad, start, end

    def _flat(self, value: float) -> float:
        return math.log2(value) if self.log else value

    def __call__(self, value: float) -> float:
        return self.start + (self._flat(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def limits(self) -> tuple[float, float]:
        return (2.0**self.low, 2.0**self.high) if self.log else (self.low, self.high)

    def ticks(self, axis: Axis) -> list[float]:
        low, high = self.limits
        if axis.ticks is not None:
            stride = math.ceil(len(axis.ticks) / 8)
            return [t for t in list(axis.ticks)[::stride] if low <= t <= high]
        return octave_ticks(low, high) if self.log else linear_ticks(low, high, unit=axis.unit)


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
    shown = [p for p in points if _drawable(p.x, x) and _drawable(p.y, y)]
    if not shown:
        return ""
    frame, to_x, to_y = _frame([p.x for p in shown], [p.y for p in shown], x, y)
    marks = [frame]
    line = [(a, b) for a, b in front if _drawable(a, x) and _drawable(b, y)]
    if len(line) > 1:
        marks.append(_polyline([(to_x(a), to_y(b)) for a, b in line], "front"))
    for p in shown:
        mark = _marker(to_x(p.x), to_y(p.y), p.kind, p.tooltip, p.square)
        marks.append(f'<a href="{escape(p.href)}" tabindex="-1">{mark}</a>' if p.href else mark)
    for p in shown:  # labels last: nothing is drawn over them
        if p.label:
            marks.append(_label(to_x(p.x), to_y(p.y), p.label))
    return _svg("".join(marks), title, description, ident)


def lines(
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    ident: str,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """One line for each series. `marks` are vertical rules with a word beside them."""
    kept = [(s, [n for n, (a, b) in enumerate(s.points) if _drawable(a, x) and _drawable(b, y)]) for s in series]
    values = [s.points[n] for s, indices in kept for n in indices]
    if not values:
        return ""
    rules = [(at, word) for at, word in marks if _drawable(at, x)]
    frame, to_x, to_y = _frame([a for a, _ in values] + [at for at, _ in rules], [b for _, b in values], x, y)
    out = [frame]
    for at, word in rules:
        px = to_x(at)
        left = px > WIDTH * 0.6
        out.append(f'<line class="rule" x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(_text("word", px + (-5 if left else 5), TOP + 11, word, "end" if left else ""))
    for s, indices in kept:
        places = [(to_x(s.points[n][0]), to_y(s.points[n][1])) for n in indices]
        if len(places) > 1:
            out.append(_polyline(places, s.kind))
        if s.markers:
            for n, (px, py) in zip(indices, places, strict=True):
                tooltip = s.tooltips[n] if n < len(s.tooltips) else ""
                out.append(_marker(px, py, s.kind, tooltip, s.square))
    return _svg("".join(out), title, description, ident)


def bars(
    rows: Sequence[tuple[str, float]],
    *,
    title: str,
    description: str,
    ident: str,
    format: Callable[[float], str] = "{:g}".format,
) -> str:
    """Horizontal bars from zero, the largest across the picture, each under its name and before its number."""
    if not rows:
        return ""
    pitch, thick = 40, 12
    height = pitch * len(rows) + 4
    room = WIDTH - 64
    largest = max((value for _, value in rows), default=0.0) or 1.0
    out = []
    for n, (name, value) in enumerate(rows):
        top = n * pitch + 4
        length = max(value / largest * room, 1.0)
        out.append(_text("tick", 0, top + 11, name))
        out.append(
            f'<rect class="bar{" first" if n == 0 else ""}" x="0" y="{top + 18}" width="{length:.1f}"'
            f' height="{thick}" rx="2"/>'
        )
        out.append(_text("number", length + 8, top + 28, format(value)))
    return _svg("".join(out), title, description, ident, height)


def _drawable(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


def _frame(xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis) -> tuple[str, Scale, Scale]:
    """Grid, ticks and axis names, and the two scales."""
    to_y = Scale(ys, HEIGHT - BOTTOM, TOP, y.log)
    labels = _labels(to_y.ticks(y), y)
    left = max((len(text) for _, text in labels), default=1) * CHARACTER + 10
    to_x = Scale(xs, left, WIDTH - RIGHT, x.log)
    out = [_text("axis", 0, 14, y.label)]
    for tick, text in labels:
        py = to_y(tick)
        out.append(f'<line class="grid" x1="{left:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT}" y2="{py:.1f}"/>')
        out.append(_text("tick", left - 7, py + 4, text, "end"))
    base = HEIGHT - BOTTOM
    out.append(f'<line class="base" x1="{left:.1f}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>')
    free = -math.inf
    for tick, text in _labels(to_x.ticks(x), x):
        px = to_x(tick)
        half = len(text) * CHARACTER / 2
        out.append(f'<line class="base" x1="{px:.1f}" y1="{base}" x2="{px:.1f}" y2="{base + 4}"/>')
        if px - half > free:  # a label that would run into the one before is left out; its tick stays
            out.append(_text("tick", px, base + 19, text, "middle"))
            free = px + half + 4
    out.append(_text("axis", WIDTH - RIGHT, HEIGHT - 8, x.label, "end"))
    return "".join(out), to_x, to_y


def _labels(ticks: Sequence[float], axis: Axis) -> list[tuple[float, str]]:
    """Ticks with their texts, which have enough digits to differ, and no decimals that are zero in every text."""
    # Values halfway between ticks have to look different too: 4.7705 is neither 4.770 nor 4.771.
    between = [(a + b) / 2 for a, b in pairwise(ticks)]
    for more in range(MORE_DIGITS):
        texts = [axis.format(tick, more) for tick in ticks]
        if len({*texts, *(axis.format(value, more) for value in between)}) == len(texts) + len(between):
            break
    while texts and all("." in text and text.endswith("0") for text in texts):
        texts = [text[:-1].removesuffix(".") for text in texts]
    return list(zip(ticks, texts, strict=True))


def _polyline(places: Sequence[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
    return f'<polyline class="line {escape(kind)}" points="{path}"/>'


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
    return _text("word", px + (-9 if left else 9), py + (-8 if above else 18), text, "end" if left else "")


def _text(kind: str, px: float, py: float, text: str, anchor: str = "") -> str:
    end = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" x="{px:.1f}" y="{py:.1f}"{end}>{escape(text)}</text>'


def _svg(body: str, title: str, description: str, ident: str, height: int = HEIGHT) -> str:
    ident = escape(ident)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(title)}</title>'
        f'<desc id="{ident}-d">{escape(description)}</desc>{body}</svg>'
    )
