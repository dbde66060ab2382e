"""Llama (arXiv 2302.13971) and Llama 3 (arXiv 2407.21783) as transformers has them: RoPE in every layer, full
attention, RMSNorm before each part, SwiGLU, and biases where asked for.
"""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words


class Llama(DenseFamily):
    model_types = ("llama",)
    architecture = "LlamaForCausalLM"
    defaults = {
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": 2048,
    }
    biases = ("attention_bias", "mlp_bias")

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        position = rope_position(fields, asked, rope_table(fields)[None])
        fields.layer_types(num_layers, ("full_attention",))
        return [(None, position)] * num_layers

    def said_sights(self, words: Words) -> dict[str, Any]:
        words.must("attention.window", None)
        if words.spec.hidden_size % words.same("attention.num_heads"):
            raise CannotSay("attention.num_heads", "in a llama config it must divide hidden_size")
        return {"rope_parameters": rope_parameters(words.same("attention.position"), "attention.position")}
