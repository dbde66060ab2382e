"""Qwen3-MoE (arXiv 2505.09388): Qwen3's attention, and a mixture of experts in every `decoder_sparse_step`th layer but
those of `mlp_only_layers`. With `use_sliding_window` all layers have a window.

Checkpoints hold each expert separately. transformers 5 stacks the experts in memory, and can write them stacked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_bias, one_eps, one_of
from miniwin.zoo.importing.dense import (
    ACTIVATIONS,
    DenseFamily,
    attention_rules,
    gated_mlp,
    head_counts,
    mlp_rules,
    model_data,
    norm_rules,
)
from miniwin.zoo.importing.experts import Stack, expert_counts, expert_names, said_counts
from miniwin.zoo.importing.family import CannotSay, Fields, Rule
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "rmsnorm", "gain": "plain"}


class Qwen3MoE(DenseFamily):
    model_types = ("qwen3_moe",)
    architecture = "Qwen3MoeForCausalLM"
    defaults = {
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "intermediate_size": 6144,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
        "router_aux_loss_coef": 0.001,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "qwen3_moe", self.defaults)
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        position = rope_position(fields, asked, rope_table(fields)[None])
        attention: dict[str, Any] = {**head_counts(fields), "qk_norm": norm, "window": self._window(fields)}
        if fields.flag("attention_bias"):
            attention |= {"qkv_bias": True, "o_bias": True}
        same = {"attention": {**attention, "position": position}, "norm": norm}
        data = model_data(fields, name, [{**same, "mlp": mlp} for mlp in self._mlps(fields)], norm)
        fields.finish()
        return data

    @staticmethod
    def _window(fields: Fields) -> int | None:
        window = fields.maybe_count("sliding_window")
        if not fields.flag("use_sliding_window") or window is None:
            fields.raw("max_window_layers")
            return None
        fields.only(
            "max_window_layers", 0, why="transformers gives every layer of a qwen3_moe model the window; expected 0"
        )
        return window

    def _mlps(self, fields: Fields) -> list[dict[str, Any]]:
        """Each layer's MLP."""
        number = "num_local_experts" if "num_local_experts" in fields.config else "num_experts"
        if {"num_local_experts", "num_experts"} <= set(fields.config):
            fields.only("num_experts", fields.raw("num_local_experts"), why="num_local_experts says otherwise")
        step, dense = fields.count("decoder_sparse_step"), fields.raw("mlp_only_layers")
        if dense is not None and not (isinstance(dense, list) and all(type(i) is int for i in dense)):
            raise fields.refuse("mlp_only_layers", "expected a list of layers' numbers")
        plain = gated_mlp(fields)
        mixture = {
            "type": "moe",
            **expert_counts(fields, number),
            "expert": gated_mlp(fields, size="moe_intermediate_size"),
            "router": {"type": "softmax-topk", "normalise": fields.flag("norm_topk_prob")},
        }
        layers = range(fields.count("num_hidden_layers"))
        return [plain if i in (dense or ()) or (i + 1) % step else mixture for i in layers]

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        rules = [
            *norm_rules(layer, ours, theirs),
            *attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn"),
        ]
        mlp = layer.mlp
        if mlp.type != "moe":
            return [*rules, *mlp_rules(mlp, f"{ours}.mlp", f"{theirs}.mlp")]
        stacked = Stack().rule(f"{ours}.mlp.experts", f"{theirs}.mlp.experts", mlp.num_experts)
        separate = Rule(stacked.ours, expert_names(f"{theirs}.mlp.experts", mlp.num_experts))
        router = Rule((f"{ours}.mlp.router.weight",), (f"{theirs}.mlp.gate.weight",))
        return [*rules, router, replace(separate, instead=(stacked,))]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "qwen3_moe")
        words.plain_decoder()
        words.must("residual", "pre")
        words.plain_attention()
        words.must("attention.qk_norm_scope", "head")
        words.must("attention.qk_norm_order", "before")
        window = words.same("attention.window")
        mlps = words.each("mlp")
        mixtures = [mlp for mlp in mlps if mlp.type == "moe"]
        plain = [mlp for mlp in mlps if mlp.type != "moe"]
        if not mixtures:
            raise CannotSay("mlp.type", "no layer has a mixture of experts")
        for mlp in mixtures:
            if mlp.shared is not None or mlp.router_bias or mlp.router.type != "softmax-topk":
                raise CannotSay("mlp.router", "a qwen3_moe model has softmax-topk without bias, and no shared expert")
        inner = [*plain, *(mlp.expert for mlp in mixtures)]
        if any(mlp.bias for mlp in inner):
            raise CannotSay("mlp.bias", "got true; a qwen3_moe model has no such biases")
        activation = one_activation(words, inner, ACTIVATIONS)
        sizes = [mlp.expert.intermediate_size for mlp in mixtures]
        norms = [("attention.qk_norm", norm) for norm in words.each("attention.qk_norm")]
        return basic_config(words, "qwen3_moe", self.architecture) | {
            "intermediate_size": one_of(words, "mlp.intermediate_size", (mlp.intermediate_size for mlp in plain), 6144),
            "moe_intermediate_size": one_of(words, "mlp.expert.intermediate_size", sizes),
            "hidden_act": activation,
            "rms_norm_eps": one_eps(words, NORM, norms),
            "attention_bias": one_bias(words),
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [i for i, mlp in enumerate(mlps) if mlp.type != "moe"],
            "norm_topk_prob": one_of(words, "mlp.router.normalise", (mlp.router.normalise for mlp in mixtures)),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
            **said_counts(words, mixtures, "num_experts"),
        }
