"""Mistral (arXiv 2310.06825): Llama with a sliding window in every layer, or in none (`sliding_window: null`)."""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words


class Mistral(DenseFamily):
    model_types = ("mistral",)
    architecture = "MistralForCausalLM"
    defaults = {
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    }

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        position = rope_position(fields, asked, rope_table(fields)[None])
        window = fields.maybe_count("sliding_window")
        expected = "full_attention" if window is None else "sliding_attention"
        # transformers gives every layer the window, whatever layer_types says. Mixed types belong to other families.
        fields.layer_types(num_layers, (expected,))
        return [(window, position)] * num_layers

    def said_sights(self, words: Words) -> dict[str, Any]:
        position = rope_parameters(words.same("attention.position"), "attention.position")
        return {"sliding_window": words.same("attention.window"), "rope_parameters": position}
