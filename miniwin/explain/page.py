"""`miniwin explain --html`: one self-contained page of a model's layers, where its rotary encodings stand, and a plot.

The plot is the sum of cosines of each rotary encoding over distance, as a share of its value at distance 0. Where it is
negative, a similar key gets less than a random one (arXiv 2405.14591). The plot is inline SVG. The page's content
security policy allows its own style and nothing else. All text from a spec is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from miniwin.blocks.messages.escaping import escaped
from miniwin.blocks.positions.rotary_bounds import cosine_sum, turning
from miniwin.display.formats import binary_bytes, length_text
from miniwin.explain.layer_strip import STYLE as STRIP_STYLE
from miniwin.explain.layer_strip import strip
from miniwin.explain.layers import RUNS, groups, layer_numbers, periods_text
from miniwin.explain.soundness import Rotary, rotary_blocks
from miniwin.files.writing import write_text
from miniwin.specs import ModelSpec, UserError, user_path

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 18, 40
EACH = "Parameters and cache are of one layer; the last row has the sums."
BINS = 240  # of distance, evenly spread over its logarithm
SAMPLES = 64  # distances computed in each bin

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #191c21; --soft: #5c646f; --rule: #e2e5ea; --accent: #3d52d5;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --ink: #e7e9ec; --soft: #9aa3ae; --rule: #2c3037;
  --accent: #9dabff; --bad: #ff9b8f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
h1 { font-size: 1.8rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0; }
h3 { font-size: 1rem; margin: 1.5rem 0 0; } p { margin: 0.4rem 0 0; max-width: 48rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: 0.9rem; }
.scroll { overflow-x: auto; margin-top: 0.6rem; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); } .text { text-align: left; }
td.wide { white-space: normal; min-width: 16rem; }
.outside { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; max-width: 46rem; height: auto; margin-top: 0.5rem; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.axis { stroke: var(--rule); } .zero { stroke: var(--soft); } .mark { stroke: var(--soft); stroke-dasharray: 3 4; }
.line { fill: none; stroke: var(--accent); stroke-width: 1.75; stroke-linejoin: round; }
.low { fill: none; stroke: var(--bad); stroke-width: 1; stroke-opacity: 0.8; }
"""


def page_file(path: Path) -> Path:
    """The file to write, or UserError where no page can be written."""
    path = user_path(path)
    if path.is_dir():
        raise UserError(f"--html: {path} is a folder; expected a file to write, such as {path / 'model.html'}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--html: there is no folder {path.absolute().parent}; make it first, or write elsewhere")
    return path


def write_page(path: Path, spec: ModelSpec, facts: dict[str, Any]) -> None:
    """Write the page, whole or not at all. facts: what `explanation` gives, with `soundness` by length."""
    path = page_file(path)
    write_text(path, page(spec, facts))


def page(spec: ModelSpec, facts: dict[str, Any]) -> str:
    title = f"{facts['name']}: layers, and are they sound?"
    body = [
        f"<h1>{escape(facts['name'])}</h1>",
        f'<p class="soft">layers {escape(facts["layout"])}, hidden_size {facts["hidden_size"]}, vocab_size '
        f"{facts['vocab_size']}, {facts['parameters']:,} parameters, hash {escape(facts['hash'])}</p>",
        "<h2>Layers</h2>",
        strip(facts),
        _layers(facts),
    ]
    lengths = list(facts["soundness"])
    for n in lengths:
        body += [f"<h2>Is it sound at {n:,} tokens?</h2>", *map(_verdicts, facts["soundness"][n])]
    blocks = {letter: rotary for letter, rotary in rotary_blocks(spec).items() if rotary is not None}
    if blocks:
        body.append(
            "<h2>How far a similar key stands out</h2><p>The sum of cosines over distance, as a share of its value at "
            "distance 0: its mean over nearby distances (thick) and its least (thin). Below zero a similar key gets "
            "less than a random one. Dotted: where a layer's sight ends at each length.</p>"
        )
    for letter, rotary in blocks.items():
        words = next(row["encoding"] for row in facts["soundness"][lengths[0]] if row["block"] == letter)
        body += [f"<h3>Block {escape(letter)}: {escape(words)}</h3>", plot(rotary, lengths, f"Block {letter}: {words}")]
    if "shift" in facts:
        body += ["<h2>The same content, some tokens later</h2>", _shift(facts["shift"])]
    return escaped(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{STRIP_STYLE}</style>\n</head>\n<body>\n{''.join(body)}\n</body>\n</html>\n"
    )


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """heads: name and class of each column. Cells are plain text."""
    top = "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in heads)
    lines = []
    for row in rows:
        kinds = [kind if cell != "outside" else f"{kind} outside" for (_, kind), cell in zip(heads, row, strict=True)]
        lines.append("".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _layers(facts: dict[str, Any]) -> str:
    lengths = list(facts["cache_bytes"])
    heads = [("layers", "text"), ("count", ""), ("block", "text"), ("sees", "text"), ("heads", "")]
    heads += [("encoding", "text"), ("period", "")]
    heads += [("parameters", ""), *((f"cache @{length_text(n)}", "") for n in lengths)]
    rows = []
    for numbers, row in groups(facts["layers"]):
        cells = [layer_numbers(numbers, RUNS), len(numbers), row["block"], row["sees"], row["heads"], row["encoding"]]
        cells += [periods_text(row["periods"])]
        rows.append(
            [*map(str, cells), f"{row['parameters']:,}", *(binary_bytes(row["cache_bytes"][n]) for n in lengths)]
        )
    totals = [f"{facts['parameters']:,}", *(binary_bytes(facts["cache_bytes"][n]) for n in lengths)]
    rows.append(["all, with embeddings", str(len(facts["layers"])), "", "", "", "", "", *totals])
    return f'{table(heads, rows)}<p class="soft">{EACH}</p>'


def _verdicts(row: dict[str, Any]) -> str:
    about = f"layers {layer_numbers(row['layers'])}, {row['encoding']}: {row['says']}"
    heading = f'<h3>Block {escape(row["block"])}</h3><p class="soft">{escape(about)}</p>'
    if not row["criteria"]:
        return heading
    heads = [("criterion", "text"), ("value", ""), ("bound", ""), ("verdict", "text"), ("what it says", "text wide")]
    rows = [[c["name"], *figures(c), c["verdict"], c["says"]] for c in row["criteria"]]
    return heading + table(heads, rows)


def _shift(rows: Sequence[dict[str, Any]]) -> str:
    heads = [
        ("block", "text"),
        ("encoding", "text"),
        ("content", ""),
        ("shifts", ""),
        ("mean change", ""),
        ("largest", ""),
    ]
    cells = []
    for row in rows:
        first, last = row["shifts"]
        changes = [f"{row[key]:.3g}" for key in ("mean", "max")]
        cells.append([row["block"], row["encoding"], f"{row['tokens']} tokens", f"{first} to {last}", *changes])
    return table(heads, cells)


def figures(criterion: dict[str, Any]) -> tuple[str, str]:
    """Value and bound of a criterion, for people."""

    def text(number: float) -> str:
        if math.isfinite(number) and (number == int(number) or abs(number) >= 1000):
            return f"{number:,.0f}"
        return f"{number:.3g}"

    return text(criterion["value"]), text(criterion["bound"])


def curve(rotary: Rotary, most: int) -> list[tuple[float, float, float]]:
    """(distance, mean, least) of the sum of cosines, as a share of that at 0, over 1 .. most."""
    points = []
    edges = [most ** (i / BINS) for i in range(BINS + 1)]
    done = 0
    for low, high in pairwise(edges):
        first, last = max(math.ceil(low), done + 1), math.floor(high)
        if last < first:
            continue
        done = last
        m = torch.linspace(first, last, min(SAMPLES, last - first + 1), dtype=torch.float64).round()
        share = cosine_sum(rotary.frequencies, m) / len(turning(rotary.frequencies))
        points.append((math.sqrt(first * last), float(share.mean()), float(share.min())))
    return points


def plot(rotary: Rotary, lengths: Sequence[int], title: str) -> str:
    """The curve with a mark where the layer's sight ends at each length."""
    ends = sorted({rotary.reach(n) for n in lengths})
    most = max(2 * ends[-1], 8)
    points = curve(rotary, most)
    low = min(-0.1, min(least for _, _, least in points))

    def x(m: float) -> float:
        return LEFT + math.log(m) / math.log(most) * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return TOP + (1 - share) / (1 - low) * (HEIGHT - TOP - BOTTOM)

    marks = []
    for share in (1.0, 0.5, 0.0, -0.5):
        if share >= low:
            kind = "axis" if share else "zero"
            marks.append(
                f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
            )
            marks.append(f'<text x="{LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:g}</text>')
    for power in range(int(math.log10(most)) + 1):
        px = x(10**power)
        marks.append(f'<text x="{px:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{10**power:,}</text>')
    for end in ends:
        px = x(max(end, 1))
        marks.append(f'<line class="mark" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        marks.append(f'<text x="{px - 4:.1f}" y="{TOP + 10}" text-anchor="end">{end:,}</text>')
    thin = " ".join(f"{x(m):.1f},{y(least):.1f}" for m, _, least in points)
    thick = " ".join(f"{x(m):.1f},{y(mean):.1f}" for m, mean, _ in points)
    label = f"{title}: sum of cosines against distance"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(label)}</title>{"".join(marks)}'
        f'<polyline class="low" points="{thin}"/><polyline class="line" points="{thick}"/>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">distance in tokens</text></svg>'
    )
