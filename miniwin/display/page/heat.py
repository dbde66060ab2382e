"""A heat map as inline SVG: every cell has its number written in it, so that nothing is told by colour alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from miniwin.display.page.axes import CHARACTER, WIDTH, svg_chart, svg_text

CELL = 34  # height of a row
STRONGEST = 0.5  # of the accent: the letters on a cell stay readable in light and in dark


@dataclass(frozen=True)
class Cell:
    """value: from 0, pale, to 1, strong; NaN: nothing was measured here."""

    value: float
    tooltip: str = ""


def heat_map(
    cells: Sequence[Sequence[Cell]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
    y: str,
    title: str,
    description: str,
    ident: str,
    text: Callable[[float], str] = "{:.2f}".format,
) -> str:
    """cells: one sequence a row, from the top. x, y: what the columns and the rows are."""
    left = max(len(name) for name in rows) * CHARACTER + 10
    wide = (WIDTH - left) / len(columns)
    out = [svg_text("axis", 0, 14, y)]
    for n, (name, row) in enumerate(zip(rows, cells, strict=True)):
        top = 24 + n * CELL
        out.append(svg_text("tick", left - 7, top + CELL / 2 + 4, name, "end"))
        for m, cell in enumerate(row):
            known = math.isfinite(cell.value)
            strength = STRONGEST * min(max(cell.value, 0.0), 1.0) if known else 0.0
            out.append(
                f'<rect class="{"heat" if known else "heat none"}" x="{left + m * wide + 1:.1f}" y="{top + 1}"'
                f' width="{wide - 2:.1f}" height="{CELL - 2}" rx="2" fill-opacity="{strength:.3f}">'
                f"<title>{escape(cell.tooltip)}</title></rect>"
            )
            if known:
                out.append(svg_text("number", left + (m + 0.5) * wide, top + CELL / 2 + 4, text(cell.value), "middle"))
    base = 24 + len(rows) * CELL
    for m, name in enumerate(columns):
        out.append(svg_text("tick", left + (m + 0.5) * wide, base + 17, name, "middle"))
    out.append(svg_text("axis", WIDTH, base + 38, x, "end"))
    return svg_chart("".join(out), title, description, ident, base + 44)
