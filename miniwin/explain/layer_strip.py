"""The layers of a model as a strip of bars. A bar is as high as its layer sees, on a logarithmic scale, and has the
colour of the layer's kind."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from miniwin.explain.layers import groups, layer_numbers

WIDTH, HIGH = 640, 72  # of the strip; of its highest bar
SCALE = 1.15  # CSS pixels of a unit, where there is room
LEAST = 0.12  # the lowest bar, as a share of the highest
WIDEST, ROOM = 34.0, 11.0  # the widest bar; the width that a letter needs
CAPTION = "One bar a layer: as high as it sees, on a logarithmic scale up to all keys."
CUT = " A bar in steps is a layer whose heads see differently: one step a key/value head."
COLOURS = 6  # the seventh kind has the first colour again: the letters tell kinds apart

STYLE = """
.sees { width: 100%; } .sees text { text-anchor: middle; fill: var(--soft); }
.keys { list-style: none; margin: 0.5rem 0 0; padding: 0; font-size: 0.9rem; }
.keys .key { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 2px; }
@media (max-width: 34rem) { .sees text { font-size: 16px; } }
.kind0 { fill: #4a6cf0; background: #4a6cf0; } .kind1 { fill: #d98324; background: #d98324; }
.kind2 { fill: #1f9e77; background: #1f9e77; } .kind3 { fill: #c2549d; background: #c2549d; }
.kind4 { fill: #7b8794; background: #7b8794; } .kind5 { fill: #a33b2e; background: #a33b2e; }
"""


def strip(facts: dict[str, Any]) -> str:
    """The bars, and what each colour stands for."""
    kinds = groups(facts["layers"])
    kind_of = {number: kind for kind, (numbers, _) in enumerate(kinds) for number in numbers}
    longest, count = max(facts["cache_bytes"]), len(facts["layers"])
    step = min(WIDTH / count, WIDEST)
    gap = min(2.0, step / 6)
    bars = []
    for number, row in enumerate(facts["layers"]):
        x = number * step
        says = f"layer {number}, {row['block']}: sees {row['sees']}; {row['encoding']}"
        sights = row.get("windows") or [row.get("chunk") or row.get("window")]
        width = (step - gap) / len(sights)
        for place, sight in enumerate(sights):
            height = HIGH * _share(sight, longest)
            bars.append(
                f'<rect class="kind{kind_of[number] % COLOURS}" x="{x + place * width:.2f}" y="{HIGH - height:.1f}" '
                f'width="{width:.2f}" height="{height:.1f}" rx="1.5"><title>{escape(says)}</title></rect>'
            )
        if step >= ROOM:
            middle = x + (step - gap) / 2
            bars.append(f'<text x="{middle:.1f}" y="{HIGH + 15}">{escape(row["block"])}</text>')
    keys = "".join(
        f'<li><span class="key kind{kind % COLOURS}"></span>{escape(_key(numbers, row))}</li>'
        for kind, (numbers, row) in enumerate(kinds)
    )
    cut = CUT if any(row.get("windows") for row in facts["layers"]) else ""
    label = f"{count} layers, {facts['layout']}: how far each sees"
    wide, height = step * count, HIGH + (20 if step >= ROOM else 2)
    return (
        f'<svg class="strip sees" viewBox="0 0 {wide:.2f} {height}" style="max-width: {SCALE * wide:.0f}px" role="img">'
        f"<title>{escape(label)}</title>"
        f'{"".join(bars)}</svg><p class="soft">{CAPTION + cut}</p><ul class="keys">{keys}</ul>'
    )


def _share(sight: int | None, longest: int) -> float:
    """The height of a bar as a share of the highest. It is 1 for a layer that sees everything."""
    if sight is None:
        return 1.0
    return max(LEAST, min(math.log(sight + 1) / math.log(longest + 1), 1.0))


def _key(numbers: list[int], row: dict[str, Any]) -> str:
    named = "layer" if len(numbers) == 1 else f"{len(numbers)} layers:"
    return f"{row['block']}, {named} {layer_numbers(numbers)}: sees {row['sees']}; {row['encoding']}"
