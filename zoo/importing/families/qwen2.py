"""Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases of q, k and v alone. Windows are said as in Qwen3."""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.families.qwen3 import Qwen3
from miniwin.zoo.importing.family import Fields
from miniwin.zoo.importing.words import Words


class Qwen2(Qwen3):
    model_types = ("qwen2",)
    architecture = "Qwen2ForCausalLM"
    defaults = {
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }
    qk_norm = None
    biases = ()

    def attention_biases(self, fields: Fields) -> dict[str, Any]:
        return {"qkv_bias": True}

    def said_biases(self, words: Words) -> dict[str, Any]:
        words.must("attention.qkv_bias", True)
        words.must("attention.o_bias", False)
        words.must("mlp.bias", False)
        return {}
