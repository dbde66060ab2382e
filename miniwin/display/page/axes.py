"""Axes of a chart: ticks, scales, and the frame around what is drawn.

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
    spans: Sequence[float] = ()  # values that the axis shows, whatever is drawn


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


def drawable(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


def frame(xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis) -> tuple[str, Scale, Scale]:
    """Grid, ticks and axis names, and the two scales."""
    to_y = Scale([*ys, *y.spans], HEIGHT - BOTTOM, TOP, y.log)
    labels = _labels(to_y.ticks(y), y)
    left = max((len(text) for _, text in labels), default=1) * CHARACTER + 10
    to_x = Scale([*xs, *x.spans], left, WIDTH - RIGHT, x.log)
    out = [svg_text("axis", 0, 14, y.label)]
    for tick, text in labels:
        py = to_y(tick)
        out.append(f'<line class="grid" x1="{left:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT}" y2="{py:.1f}"/>')
        out.append(svg_text("tick", left - 7, py + 4, text, "end"))
    base = HEIGHT - BOTTOM
    out.append(f'<line class="base" x1="{left:.1f}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>')
    free = -math.inf
    for tick, text in _labels(to_x.ticks(x), x):
        px = to_x(tick)
        half = len(text) * CHARACTER / 2
        out.append(f'<line class="base" x1="{px:.1f}" y1="{base}" x2="{px:.1f}" y2="{base + 4}"/>')
        if px - half > free:  # a label that would run into the one before is left out; its tick stays
            out.append(svg_text("tick", px, base + 19, text, "middle"))
            free = px + half + 4
    out.append(svg_text("axis", WIDTH - RIGHT, HEIGHT - 8, x.label, "end"))
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


def svg_text(kind: str, px: float, py: float, text: str, anchor: str = "") -> str:
    end = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" x="{px:.1f}" y="{py:.1f}"{end}>{escape(text)}</text>'


def svg_chart(body: str, title: str, description: str, ident: str, height: int = HEIGHT) -> str:
    ident = escape(ident)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(title)}</title>'
        f'<desc id="{ident}-d">{escape(description)}</desc>{body}</svg>'
    )
