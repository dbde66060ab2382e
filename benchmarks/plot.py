"""Tokens per second against length, as a small SVG written by hand: prefill on the left, decoding on the right.

Both axes are logarithmic. A side has the same colour in both panels; the legend names it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, GAP = 420, 300, 62, 40, 70
COLOURS = ("#c0392b", "#2c6fbb", "#2e8b57", "#8e44ad", "#b8860b", "#555555")
Lines = dict[str, list[tuple[float, float]]]


def tokens_per_second(result: dict[str, Any]) -> dict[str, Lines]:
    """family -> side -> (length, tokens per second), for the series with the most lengths in its family."""
    panels: dict[str, Lines] = {}
    for family in ("prefill", "decode"):
        cases = [case for case in result["cases"] if case["family"] == family and case["status"] == "ok"]
        series = [case["series"] for case in cases]
        longest = max(series, key=series.count, default=None)
        lines: Lines = {}
        for case in sorted((c for c in cases if c["series"] == longest), key=lambda c: c["at"]):
            for side, found in case["sides"].items():
                if "tokens_per_second" in found:
                    lines.setdefault(side, []).append((case["at"], found["tokens_per_second"]))
        if lines:
            panels[family] = lines
    return panels


def svg(result: dict[str, Any]) -> str:
    panels = tokens_per_second(result)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    width = LEFT + len(panels) * (WIDTH + GAP)
    height = TOP + HEIGHT + 56 + 18 * math.ceil(len(names) / 3)
    titles = {"prefill": "Prefill: tokens/s by length", "decode": "Decoding: tokens/s by context"}
    body = [
        _panel(LEFT + i * (WIDTH + GAP), titles[family], lines, colours)
        for i, (family, lines) in enumerate(panels.items())
    ]
    for i, name in enumerate(names):
        x, y = LEFT + 300 * (i % 3), TOP + HEIGHT + 56 + 18 * (i // 3)
        body.append(f'<rect x="{x}" y="{y - 9}" width="14" height="4" fill="{colours[name]}"/>')
        body.append(f'<text x="{x + 20}" y="{y - 3}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="#222">\n'
        f"<title>Tokens per second against length, {escape(result['date'])}</title>\n"
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(left: float, title: str, lines: Lines, colours: dict[str, str]) -> str:
    points = [point for line in lines.values() for point in line]
    xs, ys = [math.log2(x) for x, _ in points], [math.log10(y) for _, y in points]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log2(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return left + across * WIDTH, TOP + (1 - up) * HEIGHT

    parts = [f'<text x="{left}" y="{TOP - 16}" font-size="14" font-weight="bold">{escape(title)}</text>']
    for power in range(y_low, y_high + 1):
        _, y = place(2**x_low, 10.0**power)
        parts.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(10.0**power)}</text>')
    for length in sorted({x for x, _ in points}):
        x, _ = place(length, 10.0**y_low)
        parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{_short(length, 1024)}</text>')
    for name, line in lines.items():
        parts.append(_line(name, [place(x, y) for x, y in line], colours[name], line))
    return "\n".join(parts)


def _line(name: str, places: Sequence[tuple[float, float]], colour: str, values: Sequence[tuple[float, float]]) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = []
    for (x, y), (length, speed) in zip(places, values, strict=True):
        told = f"<title>{escape(name)}, {int(length):,}: {speed:,.0f} tokens/s</title>"
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">{told}</circle>')
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>' + "".join(dots)


def _short(value: float, base: int = 1000) -> str:
    """1000 -> 1k, and 1024 with base 1024; 0.1 as it is."""
    for power, letter in ((2, "M"), (1, "k")):
        if value >= base**power:
            return f"{value / base**power:g}{letter}"
    return f"{value:g}"
