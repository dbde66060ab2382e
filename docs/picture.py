"""`python docs/picture.py`: writes docs/loss-by-length.svg from the figures of `make demo` that README.md shows.

The x axis is log2 of the length, the y axis is bits per byte.
"""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path

from miniwin.files.writing import write_text

README = Path(__file__).resolve().parent.parent / "README.md"
PICTURE = Path(__file__).with_name("loss-by-length.svg")

ROW = re.compile(r"^  at +(\d+) \( *(\d+)x\)   winner (\w+) (\d+\.\d+)   baseline (\d+\.\d+)$", re.M)
WIDTH, HEIGHT = 520, 240  # of the plot itself
LEFT, TOP, RIGHT, BOTTOM = 58, 52, 130, 56
COLOURS = {"winner": "#1f6feb", "baseline": "#b35900"}


def svg(text: str) -> str:
    rows = ROW.findall(text)
    if len(rows) < 2:
        raise SystemExit(f"{README}: got {len(rows)} lines of figures; expected those that `make demo` ends with")
    lengths = [int(row[0]) for row in rows]
    layout = rows[0][2]
    lines = {"winner": [float(row[3]) for row in rows], "baseline": [float(row[4]) for row in rows]}
    values = [value for line in lines.values() for value in line]
    low, high = math.floor(min(values) * 5) / 5, math.ceil(max(values) * 5) / 5  # whole fifths
    first, last = math.log2(lengths[0]), math.log2(lengths[-1])

    def place(length: int, value: float) -> tuple[float, float]:
        across = (math.log2(length) - first) / (last - first)
        return LEFT + across * WIDTH, TOP + (high - value) / (high - low) * HEIGHT

    parts = [
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">Bits per byte by length: lower is better</text>'
    ]
    for i in range(round((high - low) * 5) + 1):
        value = low + i / 5
        _, y = place(lengths[0], value)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for length, times in zip(lengths, (row[1] for row in rows), strict=True):
        x, _ = place(length, low)
        said = "trained" if times == "1" else f"{times}x"
        parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{length:,}</text>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 38}" text-anchor="middle" fill="#666">{said}</text>')
    for name, line in lines.items():
        places = [place(length, value) for length, value in zip(lengths, line, strict=True)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2.5"/>')
        for (x, y), length, value in zip(places, lengths, line, strict=True):
            told = f"<title>{name}, {length:,} tokens: {value:.3f}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[name]}">{told}</circle>')
        x, y = places[-1]
        parts.append(f'<text x="{x + 12:.1f}" y="{y + 4:.1f}" fill="{COLOURS[name]}" font-weight="bold">{name}</text>')
        if name == "winner":
            parts.append(f'<text x="{x + 12:.1f}" y="{y + 20:.1f}" fill="{COLOURS[name]}">{escape(layout)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {TOP + HEIGHT + BOTTOM}" '
        'role="img" font-family="sans-serif" font-size="13" fill="#222">\n'
        "<title>Bits per byte against length: the demo's winner and its baseline</title>\n"
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    write_text(PICTURE, svg(README.read_text(encoding="utf-8")))
