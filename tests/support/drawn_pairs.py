"""Which pairs of values meet in drawn configurations: a few chosen draws hold as many as more draws taken blindly.

DRAWS of a test file are the numbers that were chosen: of the first 600 each is the one that adds most pairs, and values
of the first twenty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import combinations
from typing import Any

SIZES = ("num_attention_heads", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")
LISTS = ("layer_types", "no_rope_layers", "moe_layers", "mlp_only_layers")
ROPE = ("rope_type", "rope_theta", "factor", "original_max_position_embeddings", "full_attention", "sliding_attention")


def values(said: dict[str, Any]) -> dict[str, str]:
    """What decides which code runs: of lists that they are given, of sizes how heads share keys and values."""
    rope = said.get("rope_parameters", {})
    rope = rope.get("full_attention", rope)
    found = {"rope": str(rope.get("rope_type")), "rope fields": str(sorted(set(rope) - set(ROPE)))}
    groups = said["num_key_value_heads"]
    found["heads"] = "one" if groups == 1 else "all" if groups == said["num_attention_heads"] else "some"
    for name, value in said.items():
        if name in LISTS:
            found[name] = "given"
        elif name not in (*SIZES, "num_key_value_heads", "rope_parameters") and not name.endswith("_eps"):
            found[name] = json.dumps(value)
    return found


def pairs(draws: Iterable[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Fields that are left out are values too."""
    found = [values(said) for said in draws]
    names = sorted({name for said in found for name in said})
    return {pair for said in found for pair in combinations([(name, said.get(name)) for name in names], 2)}


def assert_as_varied(chosen: list[dict[str, Any]], blind: list[dict[str, Any]]) -> None:
    """The chosen draws hold every value of the others, and at least as many pairs."""
    held = {item for said in chosen for item in values(said).items()}
    assert held >= {item for said in blind for item in values(said).items()}
    assert len(pairs(chosen)) >= len(pairs(blind))
