"""Gemma (arXiv 2403.08295): Llama with norms whose gain is 1 + weight, GeGLU, embeddings times sqrt(hidden_size), and
heads of a width of their own.

The first configs say `hidden_act: gelu` and mean the tanh approximation: transformers reads them so, and so do we.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_bias, one_eps
from miniwin.zoo.importing.dense import ACTIVATIONS, DenseFamily, gated_mlp, head_counts, model_data
from miniwin.zoo.importing.family import Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "rmsnorm", "gain": "one-plus"}
# `gelu` first: it reads as the approximation. Exports say the last name for it, which older readers know as well.
MEANT = {**ACTIVATIONS, "gelu": ACTIVATIONS["gelu_pytorch_tanh"]}
SAID = {name: MEANT[name] for name in ("silu", "gelu_pytorch_tanh")}


class Gemma(DenseFamily):
    model_types = ("gemma",)
    architecture = "GemmaForCausalLM"
    defaults = {
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "max_position_embeddings": 8192,
    }
    biases = ("attention_bias",)

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "gemma", self.defaults)
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        position = rope_position(fields, asked, rope_table(fields)[None])
        attention: dict[str, Any] = {**head_counts(fields), "window": None, "position": position}
        mlp = {**gated_mlp(fields), **MEANT[fields.raw("hidden_act")]}
        alike = [act for act, kind in MEANT.items() if kind == MEANT[fields.raw("hidden_act")]]
        fields.only(
            "hidden_activation",
            *alike,
            why=f"hidden_act, which counts, is {fields.raw('hidden_act')}; remove hidden_activation",
        )
        fields.only("use_bidirectional_attention", False, why="this attention is causal")
        num_layers = fields.count("num_hidden_layers")
        fields.layer_types(num_layers, ("full_attention",))
        layer = {"attention": {**attention, **self.attention_biases(fields)}, "mlp": mlp, "norm": norm}
        data = model_data(fields, name, [layer] * num_layers, norm)
        fields.finish()
        return data | {"embed_scale": float(fields.count("hidden_size") ** 0.5)}

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "gemma")
        for field in ("embed_norm", "logit_scale", "logit_softcap"):
            words.outer(field, None)
        words.outer("embed_scale", spec.hidden_size**0.5)
        words.must("residual", "pre")
        words.plain_attention()
        words.must("attention.window", None)
        words.must("attention.qk_norm", None)
        activation = one_activation(words, words.each("mlp"), SAID)
        words.must("mlp.bias", False)
        return basic_config(words, "gemma", self.architecture) | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_act": activation,
            "attention_bias": one_bias(words),
            "rms_norm_eps": one_eps(words, NORM),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
        }
