"""The charts of the page, from what adapt.json holds to inline SVG."""

from __future__ import annotations

from typing import Any

from miniwin.display.formats import bytes_text, digits_text, length_text
from miniwin.display.page import svg
from miniwin.display.page.axes import Axis
from miniwin.display.page.figures import dot, figure, stroke
from miniwin.search.adapt.words import is_original

ORIGINAL, CHOSEN, EVEN = "original", "chosen", "evenly spaced"
SHOWN = ((CHOSEN, "best"), (ORIGINAL, "baseline"), (EVEN, "complete"))  # with the kind of line
Shown = list[tuple[str, str]]
Values = list[tuple[float, float]]


def front(result: dict[str, Any]) -> str:
    """The best of each size that the search scored: damage against cache bytes."""
    points = [
        svg.Point(
            one["cache_bytes"],
            one["damage"],
            "best" if one["layers"] == result["chosen"] else "complete",
            f"{', '.join(map(str, one['layers'])) or 'no global layer'}: "
            f"{one['damage']:+.3f}, {bytes_text(one['cache_bytes'])}",
            label=CHOSEN if one["layers"] == result["chosen"] else None,
        )
        for one in result["front"]
    ]
    base = result["placements"][ORIGINAL]["cache_bytes"]
    points.append(svg.Point(base, 0.0, "baseline", f"original: {bytes_text(base)}", label=ORIGINAL, square=True))
    chart = svg.scatter(
        points,
        x=Axis(f"cache at {length_text(result['settings']['length'])} tokens, bfloat16", bytes_text, log=True),
        y=Axis("damage, nats", digits_text),
        front=sorted((p.x, p.y) for p in points if p.kind != "baseline"),
        title="Damage against cache bytes",
        description="The best placement of each size that the search scored. Lower and further left is better.",
        ident="front",
    )
    keys = dot("best", "chosen", False) + dot("complete", "the best of another size", False)
    note = "Text and answers together, in nats a token above the original, on the questions of the search."
    return figure(chart, keys + dot("baseline", "the original", True), note) if chart else ""


def layers(result: dict[str, Any]) -> str:
    """The damage where one layer alone is global, layer by layer."""
    alone = {one["layers"][0]: one for one in result["search"]["scored"] if [type(n) for n in one["layers"]] == [int]}
    none = next((one for one in result["search"]["scored"] if not one["layers"]), None)
    if none is None or not alone:
        return ""
    points = [(float(layer), one["damage"]) for layer, one in sorted(alone.items())]
    tips = [f"layer {layer}: {one['damage']:+.3f}" for layer, one in sorted(alone.items())]
    chart = svg.lines(
        [svg.Series("complete", points, tips)],
        x=Axis("the only global layer"),
        y=Axis("damage, nats", digits_text),
        levels=[(none["damage"], "no global layer")],
        title="Damage with one global layer",
        description="Lower is better. A layer at the level of no global layer is worth nothing alone.",
        ident="layers",
    )
    note = "What a layer is worth alone. Layers that retrieve do so together, so this is not what the search goes by."
    return figure(chart, stroke("complete", "only this layer is global"), note) if chart else ""


def _shown(result: dict[str, Any]) -> Shown:
    """Lines of their own: an even spacing that is the original's has none."""
    return [(name, kind) for name, kind in SHOWN if name != EVEN or not is_original(result, name)]


def by_part(result: dict[str, Any]) -> str:
    """Nats a token of the text along the rows."""
    width = result["settings"]["seq_len"]

    def series(name: str) -> Values:
        parts = result["placements"][name]["text_by_part"]
        return [((i + 0.5) * width / len(parts), nats) for i, nats in enumerate(parts) if nats is not None]

    return _drawn(
        {name: series(name) for name, _ in _shown(result)},
        Axis("position in the text, tokens", length_text),
        Axis("text, nats a token", digits_text),
        "Loss of the text by position",
        "by-part",
    )


def by_depth(result: dict[str, Any]) -> str:
    """Nats a token of the answers by where their facts stand."""

    def series(name: str) -> Values:
        bands = result["placements"][name]["answers_by_depth"]
        return [((i + 0.5) / len(bands), one["nats"]) for i, one in enumerate(bands) if one is not None]

    return _drawn(
        {name: series(name) for name, _ in _shown(result)},
        Axis("where the fact stands: 0 is the start, 1 the end", digits_text),
        Axis("answers, nats a token", digits_text),
        "Answers by the depth of their facts",
        "by-depth",
    )


def foretold(result: dict[str, Any]) -> str:
    """The damage of random sets against what single repairs foretell."""
    prediction = result["search"]["prediction"]
    points = [
        svg.Point(foretold, damage, "complete", f"foretold {foretold:+.3f}, measured {damage:+.3f}")
        for foretold, damage in prediction["pairs"]
    ]
    chart = svg.scatter(
        points,
        x=Axis("foretold, nats", digits_text),
        y=Axis("measured, nats", digits_text),
        title="Damage of random sets: foretold by single repairs, and measured",
        description="If single repairs added up, the points would lie on a rising line.",
        ident="foretold",
    )
    found = prediction["spearman"]
    said = "" if found is None else f"The rank correlation is {found:.2f}. "
    return figure(chart, "", f"{said}One point for each of the {len(points)} random sets.") if chart else ""


def _drawn(values: dict[str, Values], x: Axis, y: Axis, title: str, ident: str) -> str:
    kinds = dict(SHOWN)
    series = [
        svg.Series(kinds[name], points, [f"{name}: {nats:.3f}" for _, nats in points], square=name == ORIGINAL)
        for name, points in values.items()
    ]
    chart = svg.lines(series, x=x, y=y, title=title, description="Lower is better.", ident=ident)
    keys = "".join(stroke(kinds[name], name) for name in values)
    return figure(chart, keys, "Lower is better.") if chart else ""
