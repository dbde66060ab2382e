"""StarCoder 2 (BigCode, 2024): RoPE and grouped queries as in Mistral, with LayerNorm, a plain MLP, and biases
everywhere (`use_bias`). Every layer has a window, or none has.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_bias, one_eps
from miniwin.zoo.importing.dense import DenseFamily, attention_rules, head_counts, model_data, norm_rules
from miniwin.zoo.importing.families.gpt_neox import PLAIN_ACTIVATIONS, plain_mlp, same
from miniwin.zoo.importing.family import Fields, Rule
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "layernorm", "bias": True}


class StarCoder2(DenseFamily):
    model_types = ("starcoder2",)
    architecture = "Starcoder2ForCausalLM"
    defaults = {
        "num_key_value_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "use_bias": True,
        "max_position_embeddings": 4096,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "starcoder2", self.defaults)
        fields.only(
            "norm_type",
            "layer_norm",
            why="transformers' starcoder2 models have LayerNorm, whatever this says; remove it",
        )
        fields.only("mlp_type", "default", why="transformers' starcoder2 models have a plain MLP; remove it")
        biased = fields.flag("use_bias")
        norm = {**NORM, "eps": fields.real("norm_epsilon")}
        position = rope_position(fields, asked, rope_table(fields)[None])
        window, num_layers = fields.maybe_count("sliding_window"), fields.count("num_hidden_layers")
        # transformers gives every layer the window, whatever layer_types says.
        fields.layer_types(num_layers, ("full_attention" if window is None else "sliding_attention",))
        attention: dict[str, Any] = {**head_counts(fields), "window": window, "position": position}
        mlp = plain_mlp(fields)
        if biased:
            attention |= {"qkv_bias": True, "o_bias": True}
            mlp["bias"] = True
        layer = {"attention": attention, "mlp": mlp, "norm": norm}
        data = model_data(fields, name, [layer] * num_layers, norm)
        fields.finish()
        return data

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        return [
            *norm_rules(layer, ours, theirs),
            *attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn"),
            *same(f"{ours}.mlp.up_proj", f"{theirs}.mlp.c_fc", layer.mlp.bias),
            *same(f"{ours}.mlp.down_proj", f"{theirs}.mlp.c_proj", layer.mlp.bias),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "starcoder2")
        words.plain_decoder()
        words.must("residual", "pre")
        words.plain_attention()
        words.must("attention.qk_norm", None)
        activation = one_activation(words, words.each("mlp"), PLAIN_ACTIVATIONS)
        biased = one_bias(words)
        words.must("mlp.bias", biased)
        return basic_config(words, "starcoder2", self.architecture) | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_act": activation,
            "norm_epsilon": one_eps(words, NORM),
            "use_bias": biased,
            "sliding_window": words.same("attention.window"),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
        }
