"""OLMo 2 (arXiv 2501.00656): norms after each part instead of before it, QK-norm over the whole projection, and full
attention with RoPE in every layer.
"""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words


class Olmo2(DenseFamily):
    model_types = ("olmo2",)
    architecture = "Olmo2ForCausalLM"
    defaults = {
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 2048,
    }
    residual = "post"
    qk_norm = "all"
    biases = ("attention_bias",)

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        position = rope_position(fields, asked, rope_table(fields)[None])
        fields.layer_types(num_layers, ("full_attention",))
        return [(None, position)] * num_layers

    def said_sights(self, words: Words) -> dict[str, Any]:
        words.must("attention.window", None)
        return {"rope_parameters": rope_parameters(words.same("attention.position"), "attention.position")}
