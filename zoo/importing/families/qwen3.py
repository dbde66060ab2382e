"""Qwen3 (arXiv 2505.09388): Llama with QK-norm per head before the rotation.

With `use_sliding_window` some layers have a window: those that `layer_types` names, or else all from layer number
`max_window_layers` on.
"""

from __future__ import annotations

from typing import Any, ClassVar

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words


class Qwen3(DenseFamily):
    model_types = ("qwen3",)
    architecture = "Qwen3ForCausalLM"
    defaults = {
        "num_key_value_heads": 32,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }
    qk_norm: ClassVar[str | None] = "head"
    biases: ClassVar[tuple[str, ...]] = ("attention_bias",)

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        position = rope_position(fields, asked, rope_table(fields)[None])
        window = fields.maybe_count("sliding_window")
        window = window if fields.flag("use_sliding_window") else None
        first = fields.raw("max_window_layers")
        types = fields.layer_types(num_layers, ("full_attention", "sliding_attention"))
        if types is None:
            if not isinstance(first, int):
                raise fields.refuse("max_window_layers", "expected how many layers are without a window")
            first = num_layers if window is None else first
            types = ["full_attention" if i < first else "sliding_attention" for i in range(num_layers)]
        if window is None and "sliding_attention" in types:
            raise fields.refuse("layer_types", "sliding layers need sliding_window, and use_sliding_window: true")
        return [(None if one == "full_attention" else window, position) for one in types]

    def said_sights(self, words: Words) -> dict[str, Any]:
        window = words.sliding()
        return {
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "max_window_layers": words.spec.num_layers,
            "layer_types": words.layer_types(),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
        }
