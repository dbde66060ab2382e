"""Resizing a model until it has a given cost (`match` of a search spec, specs/matching.py).

    mlp     every intermediate_size, each expert's too, by one factor
    width   hidden_size to the nearest that the heads divide, with head_dim and every intermediate_size in proportion;
            then the MLPs, which are the finer screw

Sizes are rounded to the coarsest of 16, 8, 4, 2 and 1 that comes near enough: hardware likes them round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from miniwin.search.objectives import cost
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.specs.matching import Match
from miniwin.specs.speeds import Speeds

MULTIPLES = (16, 8, 4, 2, 1)
WIDEST = 8  # times as wide, or as narrow, as the candidate was

Costs = Callable[[ModelSpec], float]


def resized(model: ModelSpec, match: Match, target: float, trained: int, speeds: Speeds | None = None) -> ModelSpec:
    """The model with sizes changed, so that its cost is `target`; the model itself if its cost is near enough.

    trained: the training length of the study's train spec. speeds: what the study predicts times by.

    Raises:
        UserError: no size comes near enough.
    """

    def costs(one: ModelSpec) -> float:
        return cost(match.cost, one, trained, speeds)

    def off(one: ModelSpec) -> float:
        return abs(costs(one) / target - 1)

    if off(model) <= match.within:
        return model
    tried = [model]
    for start in [model] if match.resize == "mlp" else _widths(model, costs, target):
        tried.append(start)
        for found in _fitted_mlps(start, costs, target):
            if off(found) <= match.within:
                return found
            tried.append(found)
    nearest = min(tried, key=off)
    raise UserError(
        f"match: no {'intermediate_size' if match.resize == 'mlp' else 'hidden_size'} gives {match.cost} the base "
        f"model's {_shown(target)} within {match.within:.1%}; the nearest is {_shown(costs(nearest))}: "
        "widen `within`, or resize something else"
    )


def _fitted_mlps(model: ModelSpec, costs: Costs, target: float) -> Iterator[ModelSpec]:
    """The model, and with MLPs of other sizes, the roundest first."""
    yield model
    now, doubled = costs(model), costs(_with_mlps(model, 2.0, 1))
    if doubled == now:  # no MLP decides this cost
        return
    factor = 1 + (target - now) / (doubled - now)  # costs are linear in the sizes
    if factor > 0:
        for multiple in MULTIPLES:
            yield _with_mlps(model, factor, multiple)


def _with_mlps(model: ModelSpec, factor: float, multiple: int) -> ModelSpec:
    def size(before: int) -> int:
        return max(multiple, round(before * factor / multiple) * multiple)

    data = model.model_dump(mode="json")
    for block in data["blocks"].values():
        each_size(block["mlp"], size)
    return _parsed(data)


def each_size(mlp: Any, size: Callable[[int], int]) -> None:
    """Change every intermediate_size in a dumped MLP: its own, those of its experts, that of a shared one."""
    if isinstance(mlp, dict):
        for name, value in mlp.items():
            if name == "intermediate_size":
                mlp[name] = size(value)
            else:
                each_size(value, size)


def _widths(model: ModelSpec, costs: Costs, target: float) -> Iterator[ModelSpec]:
    """The model at the widths whose costs are nearest to the target, on either side."""
    heads = [layer.attention.num_heads for layer in model.blocks.values()]
    unit = 2 * math.lcm(*heads)  # rotary encodings need an even head_dim
    low, high = max(1, model.hidden_size // WIDEST // unit), -(-model.hidden_size * WIDEST // unit)
    while high - low > 1:  # a cost rises with the width
        middle = (low + high) // 2
        below = costs(_at_width(model, middle * unit)) <= target
        low, high = (middle, high) if below else (low, middle)
    both = [_at_width(model, units * unit) for units in (low, high)]
    yield from sorted(both, key=lambda one: abs(costs(one) - target))


def _at_width(model: ModelSpec, hidden_size: int) -> ModelSpec:
    factor = hidden_size / model.hidden_size
    data = model.model_dump(mode="json")
    data["hidden_size"] = hidden_size
    for block in data["blocks"].values():
        attention = block["attention"]
        if attention.get("head_dim") is not None:
            attention["head_dim"] = max(2, round(attention["head_dim"] * factor / 2) * 2)
        each_size(block["mlp"], lambda size: max(1, round(size * factor)))
    return _parsed(data)


def _shown(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1 else f"{cost:.4g}"


def _parsed(data: dict[str, Any]) -> ModelSpec:
    spec = parse_spec(data, "model")
    assert isinstance(spec, ModelSpec)
    return spec
