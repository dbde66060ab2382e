"""What the shapes of the weights say about a Llama-like checkpoint that comes without a config."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from miniwin.zoo.importing.asked import Asked

LAYER = re.compile(r"^model\.layers\.(\d+)\.")


def together(inferred: dict[str, Any], asked: Any) -> Mapping[str, Any]:
    """A config of what the shapes say and what was said."""
    return ChainMap(inferred, asked)  # reads of what was said still go through `asked`, which keeps account of them


def inferred_sizes(asked: Asked) -> dict[str, Any]:
    """The sizes that shapes decide, agreed with what was said. Nothing where the names are not those expected: what is
    missing is then said when the weights are looked at."""
    shapes = asked.shapes
    values: dict[str, Any] = {}

    def see(key: str, value: int, name: str) -> None:
        values[key] = asked.infer(key, value, f"{name} has shape {shapes[name]}")

    embed = "model.embed_tokens.weight"
    if len(shapes.get(embed, ())) == 2:
        see("vocab_size", shapes[embed][0], embed)
        see("hidden_size", shapes[embed][1], embed)
    layers = {int(match[1]) for name in shapes if (match := LAYER.match(name))}
    if layers:
        last = max(layers)
        evidence = f"the last layer is model.layers.{last}"
        values["num_hidden_layers"] = asked.infer("num_hidden_layers", last + 1, evidence)
    gate = "model.layers.0.mlp.gate_proj.weight"
    if len(shapes.get(gate, ())) == 2:
        see("intermediate_size", shapes[gate][0], gate)
    return values


def inferred_heads(asked: Asked, attention: str, head_dim: int | None, values: dict[str, Any]) -> None:
    """num_attention_heads and num_key_value_heads, given the channels of a head. attention: the prefix of its names."""
    for key, part in (("num_attention_heads", "q_proj"), ("num_key_value_heads", "k_proj")):
        name = f"{attention}.{part}.weight"
        shape = asked.shapes.get(name, ())
        if head_dim and len(shape) == 2 and shape[0] % head_dim == 0:
            values[key] = asked.infer(key, shape[0] // head_dim, f"{name} has shape {shape}, heads of {head_dim}")
