"""A comparison of two studies as lines for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.display.formats import count_text, seconds_text
from miniwin.search.comparing import Comparison, Side
from miniwin.search.live_table import aligned, shortened, shown


def comparison_lines(found: Comparison) -> list[str]:
    """A row for each thing that is compared, a column for each side; then what the volumes mean, and a caution."""
    rows = [("", *(side.name for side in found.sides))]
    for title, text in _rows(found):
        ours, theirs = (escaped_line(text(side)) for side in found.sides)
        if ours or theirs:
            rows.append((title, ours, theirs))
    columns = [aligned([row[n] for row in rows], "left") for n in range(3)]
    lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    if found.reference:
        point = ", ".join(f"{name.split()[1]} {shown(value)}" for name, value in found.reference.items())
        lines.append(f"volume: the share of the box up to {point} that the front dominates; more is better")
    if all(side.asked.get("tokens_per_trial") == 0 for side in found.sides):
        return [
            *lines,
            "Nothing was trained: on this text the differences are as they are, on another they may differ.",
        ]
    one = all("seeds" not in side.asked for side in found.sides)
    return [*lines, f"{'Each trial is one seed: a' if one else 'A'} small difference may be chance."]


def _rows(found: Comparison) -> list[tuple[str, Callable[[Side], str]]]:
    names = dict.fromkeys(name for side in found.sides for name in side.asked.get("variables", {}))
    tuned = any("learning_rate" in side.asked for side in found.sides)
    rows: list[tuple[str, Callable[[Side], str]]] = [("base", lambda side: str(side.asked["base"]))]
    rows += [(name, lambda side, name=name: _variable(side, name)) for name in names]  # type: ignore[misc]
    rows += [
        ("constraints", lambda side: " and ".join(side.asked.get("constraints", []))),
        ("sampler", lambda side: _kind(side.asked.get("sampler"))),
        ("pruner", lambda side: _kind(side.asked.get("pruner")) if "pruner" in side.asked else ""),
        ("budget", _budget),
        ("learning rate", lambda side: _rate(side) if tuned else ""),
        ("trials", lambda side: ", ".join(f"{count} {state}" for state, count in side.states.items())),
        ("tokens spent", lambda side: count_text(side.tokens)),
        ("time spent", lambda side: seconds_text(side.seconds)),
    ]
    if len(found.objectives) > 1:
        rows += [
            ("front", lambda side: f"{len(side.front)}, {side.beaten} of them beaten by the other"),
            ("volume", lambda side: "" if side.volume is None else f"{side.volume:.4f}"),
        ]
    rows.append(("best", lambda side: "none yet" if side.best is None else _trial(side.best)))
    rows += [(text, lambda side, text=text: _value(side, text)) for text in found.objectives]  # type: ignore[misc]
    lengths = sorted({int(n) for side in found.sides if side.best for n in side.best["losses"]})
    rows += [(f"bits/byte at {n:,}", lambda side, n=n: _bits(side, str(n))) for n in lengths]  # type: ignore[misc]
    return rows


def _budget(side: Side) -> str:
    seeds = f"{side.asked['seeds']} seeds x " if "seeds" in side.asked else ""
    return f"{side.asked['trials']} x {seeds}{count_text(side.asked['tokens_per_trial'])} tokens"


def _rate(side: Side) -> str:
    """`tuned: 0.003, 0.01`, or that of the train spec."""
    asked = side.asked.get("learning_rate")
    if asked is None:
        return "one for all"
    rates = asked["tuned"] or [f"{factor:g}x" for factor in asked["factors"]]
    return f"tuned: {', '.join(map(str, rates))}"


def _variable(side: Side, name: str) -> str:
    """`int [1, 7]`, `choice [16, 32]`."""
    fields = side.asked.get("variables", {}).get(name)
    if fields is None:
        return ""
    kind, values = next(iter(fields.items()))
    return shortened(f"{kind} {json.dumps(values)}", 40)


def _kind(spec: dict[str, Any] | None) -> str:
    return "none" if spec is None else str(spec["type"])


def _trial(best: dict[str, Any]) -> str:
    name = "" if best["number"] < 0 else f"trial {best['number']}, "
    return f"{name}{shortened(best['layout'])}"


def _value(side: Side, text: str) -> str:
    return "" if side.best is None else shown(side.best["values"][text])


def _bits(side: Side, length: str) -> str:
    loss = None if side.best is None else side.best["losses"].get(length)
    return "" if loss is None else f"{loss / math.log(2):.4f}"
