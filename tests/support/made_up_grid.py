"""A made-up table of a grid, whose structure is known."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.search_grid.table import Row, Rung, Table
from miniwin.search.space import Space
from miniwin.specs import load_model_spec, load_train_spec, parse_spec

TOKENS = (100, 300, 900, 1800, 2700)  # the fourth is none of successive halving with a reduction of 3
SEARCH: dict[str, Any] = {
    "kind": "search",
    "format": 1,
    "name": "t",
    "base": "miniwin-tiny",
    "train": "demo",
    "variables": {"ratio": {"int": [1, 7]}, "window": {"choice": [8, 16, 32]}, "factor": {"int": [1, 4]}},
    "set": {
        "pattern": "S * ratio + G",
        "blocks.S.attention.window": "window",
        "blocks.S.attention.position.period": "factor * window",
    },
    "objectives": ["minimize loss@16x"],
    "budget": {"trials": 4},
}
Values = dict[str, Any]


def space() -> Space:
    return Space(parse_spec(SEARCH, "search"), load_model_spec("miniwin-tiny"), load_train_spec("demo"))


def good(values: Values) -> float:
    """Best at a ratio of 5, a window of 16 and a factor of 3; nothing else is within 1 %."""
    return 1 + 0.02 * abs(values["ratio"] - 5) + 0.05 * (values["window"] != 16) + 0.03 * abs(values["factor"] - 3)


def table(early: Callable[[Values, Random], float], noise: float = 0.0, diverges: int | None = None) -> Table:
    """early: the loss at the rungs before the last. diverges: which row does, after its second rung."""
    draw, made, rows = Random(3), space(), []
    for place, values in enumerate(made.decode(params) for params in made.enumerate() or ()):
        for seed in (0, 1) if place % 4 == 0 and noise else (0,):
            ends = [early(values, draw) for _ in TOKENS[:-1]] + [good(values) + draw.gauss(0, noise)]
            rungs = tuple(
                Rung(tokens, 1.0, 1.0, {"loss@2048": end, "recall-nats@2048": 3 - end + 0.1 * (values["window"] == 8)})
                for tokens, end in zip(TOKENS, ends, strict=True)
            )
            broken = place == diverges
            status = "diverged" if broken else "complete"
            rows.append(Row(values, seed, status, None, {"cache_bytes@2048": 1.0}, rungs[: 2 if broken else 5], 128))
    return Table(tuple(rows), ("ratio", "window", "factor"), len(rows), 128)


def foretell(values: Values, draw: Random) -> float:
    return 2 + good(values)


def mislead(values: Values, draw: Random) -> float:
    return draw.random()
