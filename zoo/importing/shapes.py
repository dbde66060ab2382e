"""Sizes that the shapes of the weights show, for a Llama-like checkpoint without a config."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from miniwin.zoo.importing.asked import Asked

LAYER = re.compile(r"^model\.layers\.(\d+)\.")


def together(inferred: dict[str, Any], asked: Any) -> Mapping[str, Any]:
    """The fields that the shapes show, and those of `asked`, as one config."""
    # The fields of `asked` are still read through `asked`, which keeps account of that.
    return ChainMap(inferred, asked)


def inferred_sizes(asked: Asked) -> dict[str, Any]:
    """The sizes that the shapes show. Raises UserError where the user or the config says another size.

    A tensor with an unexpected name or shape gives nothing here. The check of the weights reports it later.
    """
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
    """Add num_attention_heads and num_key_value_heads to `values`. attention: prefix of the names of its tensors."""
    for key, part in (("num_attention_heads", "q_proj"), ("num_key_value_heads", "k_proj")):
        name = f"{attention}.{part}.weight"
        shape = asked.shapes.get(name, ())
        if head_dim and len(shape) == 2 and shape[0] % head_dim == 0:
            values[key] = asked.infer(key, shape[0] // head_dim, f"{name} has shape {shape}, heads of {head_dim}")
