"""Which coding of placements suits TPE, by how many there are: searches over a made-up loss.

The grid has ten placements only. Here a search chooses K of N layers, and the loss is known: a sum over the chosen
layers and over their pairs, drawn anew for each seed.

    loss(placement) = sum_i a_i + sum_ij b_ij        a ~ N(0, 1), b ~ N(0, PAIRS)
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from miniwin.files.writing import write_text
from miniwin.search.history import Tried
from miniwin.search.samplers.proposing import Proposer
from miniwin.search.space import Space
from miniwin.specs import SearchSpec, load_model_spec, load_train_spec, parse_spec

FILE = "placements.md"
SIZES = ((4, 2), (6, 2), (8, 2), (9, 2), (12, 3), (16, 4), (30, 6))  # layers, and how many of them are chosen
PAIRS = 0.3
TRIALS = 60
SEEDS = 20
WAYS = (("random", None), ("tpe", "ordinal"), ("tpe", "letters"), ("evolution", None))


def table() -> list[str]:
    """The lines of a table: the mean over seeds of the best loss found, random search's taken off."""
    names = [sampler if coding is None else f"{sampler}, {coding}" for sampler, coding in WAYS[1:]]
    lines = [f"| layers, chosen | placements | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for layers, chosen in SIZES:
        spaces = {sampler: _space(layers, chosen, sampler) for sampler, _ in WAYS}
        best = [
            fmean(_best(spaces[sampler], coding, layers, seed) for seed in range(SEEDS)) for sampler, coding in WAYS
        ]
        said = " | ".join(f"{one - best[0]:+.2f}" for one in best[1:])
        lines.append(f"| {layers}, {chosen} | {spaces['tpe'].most_placements():,} | {said} |")
    return lines


def _space(layers: int, chosen: int, sampler: str) -> Space:
    document: dict[str, Any] = {
        "kind": "search",
        "format": 1,
        "name": "placements",
        "base": "miniwin-tiny",
        "train": "demo",
        "variables": {"placement": {"subset": {"of": layers, "size": chosen}}, "window": {"choice": [8, 16, 32]}},
        "set": {
            "num_layers": layers,
            "last": None,
            "pattern": "place(placement, G, S)",
            "blocks.S.attention.window": "window",
        },
        "objectives": ["minimize loss@16x"],
        "budget": {"trials": TRIALS},
        "sampler": {"type": sampler},
    }
    spec = parse_spec(document, "search")
    assert isinstance(spec, SearchSpec)
    return Space(spec, load_model_spec("miniwin-tiny"), load_train_spec("demo"))


def _best(space: Space, coding: str | None, layers: int, seed: int) -> float:
    draw = Random(seed)
    alone = [draw.gauss(0, 1) for _ in range(layers)]
    paired = {(i, j): draw.gauss(0, PAIRS) for i in range(layers) for j in range(i)}
    proposer, history = Proposer(_seeded(space, seed), coding), list[Tried]()
    while len(history) < TRIALS and (params := proposer.propose(history)) is not None:
        values = space.decode(params)
        places = values["placement"]
        loss = sum(alone[i] for i in places) + sum(paired[i, j] for i in places for j in places if j < i)
        loss += (values["window"] - 8) / 24
        history.append(Tried(len(history), params, "complete", ((loss,),)))
    return min(tried.rungs[-1][0] for tried in history)


def _seeded(space: Space, seed: int) -> Space:
    return Space(space.spec.model_copy(update={"seed": seed}), space.base, space.train)


def write(folder: Path) -> Path:
    """placements.md of the results, which the page holds."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, "\n".join(table()) + "\n")
    return folder / FILE
