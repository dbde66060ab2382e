"""Mixtral (arXiv 2401.04088): Mistral's attention, and in every layer a mixture whose router takes the softmax over all
experts, keeps the best, and makes their weights sum to 1.

Checkpoints hold each expert separately, under names of their own (w1 is the gate, w3 up, w2 down). transformers 5
stacks the experts in memory, and can write them stacked.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_eps
from miniwin.zoo.importing.dense import (
    ACTIVATIONS,
    DenseFamily,
    attention_rules,
    gated_mlp,
    head_counts,
    model_data,
    norm_rules,
)
from miniwin.zoo.importing.experts import Stack, expert_counts, said_counts
from miniwin.zoo.importing.family import Fields, Rule
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "rmsnorm", "gain": "plain"}
PARTS = ("w1", "w3", "w2")  # gate, up, down


class Mixtral(DenseFamily):
    model_types = ("mixtral",)
    architecture = "MixtralForCausalLM"
    defaults = {
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "mixtral", self.defaults)
        fields.raw("router_jitter_noise")  # training only
        if "num_experts" in config:  # transformers takes it for another name of num_local_experts
            fields.only("num_experts", fields.count("num_local_experts"), why="num_local_experts says otherwise")
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        position = rope_position(fields, asked, rope_table(fields)[None], default_theta=1e6)
        window, num_layers = fields.maybe_count("sliding_window"), fields.count("num_hidden_layers")
        # transformers gives every layer the window, whatever layer_types says.
        fields.layer_types(num_layers, ("full_attention" if window is None else "sliding_attention",))
        layer = {
            "attention": {**head_counts(fields), "window": window, "position": position},
            "mlp": {
                "type": "moe",
                **expert_counts(fields),
                "expert": gated_mlp(fields),
                "router": {"type": "softmax-topk", "normalise": True},
            },
            "norm": norm,
        }
        data = model_data(fields, name, [layer] * num_layers, norm)
        fields.finish()
        return data

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        router, published = f"{ours}.mlp.router.weight", f"{theirs}.block_sparse_moe"
        held = Rule((router,), (f"{theirs}.mlp.gate.weight",))
        stacked = Stack().rule(f"{ours}.mlp.experts", f"{theirs}.mlp.experts", layer.mlp.num_experts)
        separate = tuple(
            f"{published}.experts.{e}.{part}.weight" for e in range(layer.mlp.num_experts) for part in PARTS
        )
        return [
            *norm_rules(layer, ours, theirs),
            *attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn"),
            Rule((router,), (f"{published}.gate.weight",), instead=(held,)),
            Rule(stacked.ours, separate, instead=(stacked,)),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "mixtral")
        words.plain_decoder()
        words.must("residual", "pre")
        words.plain_attention()
        words.must("attention.qk_norm", None)
        words.must("attention.qkv_bias", False)
        words.must("attention.o_bias", False)
        for path, value in (
            ("mlp.type", "moe"),
            ("mlp.shared", None),
            ("mlp.router.type", "softmax-topk"),
            ("mlp.router_bias", False),
            ("mlp.expert.bias", False),
        ):
            words.must(path, value)
        words.must("mlp.router.normalise", True)
        return basic_config(words, "mixtral", self.architecture) | {
            "intermediate_size": words.same("mlp.expert.intermediate_size"),
            "hidden_act": one_activation(words, words.each("mlp.expert"), ACTIVATIONS),
            "rms_norm_eps": one_eps(words, NORM),
            "sliding_window": words.same("attention.window"),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
            **said_counts(words, words.each("mlp")),
        }
