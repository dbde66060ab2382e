"""A model at another size: the same design with more or fewer layers, more or less wide.

A size is a number of parameters. Width and depth keep their proportion to each other, as well as whole layers allow.
hidden_size, heads and MLPs grow alike. head_dim, windows and periods stay: they decide what a layer can see. At the end
the MLPs, which are the finer screw, are resized until the number of parameters is right. The layout grows in one of two
ways:

    stack     the pattern goes on:                               SSG at 8 layers is SSGSSGSG
    stretch   a layer has the letter at its relative depth:      SSG at 6 layers is SSSSGG

In both, the last layer keeps its letter: much depends on it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from miniwin.search.matching import WIDEST, each_size, resized
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.specs.matching import Match

Grow = Literal["stack", "stretch"]

WITHIN = 0.02  # how far the parameters may be from the size asked for without a word
FARTHEST = 0.1  # and at all
FINEST = 0.003  # what the MLPs are first asked for
FINE = 16  # a step of the width is at most this part of it, where hardware leaves a choice
NEAR = 4  # depths tried on either side of the one that the cube root of the size says


def repeats(model: ModelSpec) -> bool:
    """Whether the layout is a pattern that is repeated, rather than written out layer by layer."""
    return len(model.pattern) < model.num_layers


def laid_out(model: ModelSpec, layers: int, grow: Grow) -> str:
    """The letters of a model with so many layers.

    Raises:
        UserError: a letter is lost, so it would be another design.
    """
    before, last = model.layout, model.layout[-1]
    if grow == "stack":
        letters = (model.pattern * (layers // len(model.pattern) + 1))[: layers - 1] + last
    else:
        places = (math.floor((place + 0.5) * len(before) / layers) for place in range(layers - 1))
        letters = "".join(before[place] for place in places) + last
    if lost := sorted(set(before) - set(letters)):
        raise UserError(
            f"{model.name} has the layers {before}, and of {layers} layers ({letters}) none is {lost[0]}: "
            "take a larger size, or another --grow"
        )
    return letters


def find_layers(model: ModelSpec, target: float, grow: Grow) -> int:
    """How many layers the model has at a number of parameters, so that width and depth keep their proportion.

    Raises:
        UserError: no number of layers keeps every letter.
    """
    middle = round(model.num_layers * (target / model.parameters()) ** (1 / 3))
    found: dict[int, float] = {}
    problem: UserError | None = None
    for layers in range(max(1, middle - NEAR), middle + NEAR + 1):
        try:
            wide = _at_nearest_width(model, target, laid_out(model, layers, grow))
        except UserError as error:
            problem = error
            continue
        found[layers] = abs(math.log(wide.hidden_size / layers * model.num_layers / model.hidden_size))
    if not found:
        assert problem is not None
        raise problem
    return min(found, key=lambda layers: (found[layers], layers))


def at_size(model: ModelSpec, target: float, layers: int, grow: Grow) -> ModelSpec:
    """The model with so many layers and, as nearly as can be, so many parameters.

    Raises:
        UserError: no width comes near.
    """
    wide = _at_nearest_width(model, target, laid_out(model, layers, grow))
    for within in (FINEST, WITHIN):
        match = Match(cost="parameters", resize="mlp", within=within)
        try:
            found = resized(wide, match, target, 1)
        except UserError:
            continue
        if found.hidden_size == wide.hidden_size and _mlp_sizes(found):
            return found
    if abs(wide.parameters() / target - 1) > FARTHEST:
        raise UserError(
            f"no width gives {model.name} {target:,.0f} parameters with {layers} layers; the nearest is "
            f"{wide.parameters():,}, with hidden_size {wide.hidden_size}: take another size"
        )
    return wide


def _mlp_sizes(model: ModelSpec) -> bool:
    """Whether every MLP is still wide enough to be one."""
    sizes: list[int] = []
    for block in model.model_dump(mode="json")["blocks"].values():
        each_size(block["mlp"], lambda size: sizes.append(size) or size)  # type: ignore[func-returns-value]
    return all(size >= 4 for size in sizes)


def _at_nearest_width(model: ModelSpec, target: float, layout: str) -> ModelSpec:
    """The model at the width whose parameters are nearest to the target."""
    guess = model.hidden_size * math.sqrt(target / model.parameters() * model.num_layers / len(layout))
    unit = next((unit for unit in (16, 8, 4) if unit * FINE <= guess), 2)
    low, high = 1, max(2, -(-model.hidden_size * WIDEST // unit))
    while high - low > 1:  # parameters rise with the width
        middle = (low + high) // 2
        below = _at_width(model, middle * unit, layout).parameters() <= target
        low, high = (middle, high) if below else (low, middle)
    both = [_at_width(model, units * unit, layout) for units in (low, high)]
    return min(both, key=lambda one: abs(math.log(one.parameters() / target)))


def _at_width(model: ModelSpec, hidden_size: int, layout: str) -> ModelSpec:
    factor = hidden_size / model.hidden_size
    data = model.model_dump(mode="json")
    data.update(hidden_size=hidden_size, num_layers=len(layout), pattern=layout, last=None)
    for letter, layer in model.blocks.items():
        before: Any = layer.resolve(model.hidden_size).attention
        block = data["blocks"][letter]
        kv_heads = max(1, round(before.num_kv_heads * factor))
        sharing = before.num_heads // before.num_kv_heads  # query heads for each of them
        heads = {"num_heads": sharing * kv_heads, "num_kv_heads": kv_heads, "head_dim": before.head_dim}
        block["attention"] |= heads
        each_size(block["mlp"], lambda size: max(1, round(size * factor)))
    return _parsed(model, data)


def _parsed(model: ModelSpec, data: dict[str, Any]) -> ModelSpec:
    try:
        spec = parse_spec(data, "model")
    except UserError as error:
        raise UserError(f"{model.name} cannot be {data['hidden_size']} wide: {error}; take another size") from None
    assert isinstance(spec, ModelSpec)
    return spec
