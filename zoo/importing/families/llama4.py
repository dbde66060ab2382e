"""Llama 4 (Meta, 2025). Layers have chunked attention with interleaved RoPE. Every fourth layer, or as `no_rope_layers`
and `layer_types` say, has full attention without position encoding.

Layers that rotate have QK-norm without weights after the rotation; the others have temperature tuning. The layers that
`moe_layers` or `interleave_moe_layer_step` names have a mixture of experts with a shared expert. Of a multimodal model
(`llama4`) only the language model is imported.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_bias, one_eps, one_of, positive
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
from miniwin.zoo.importing.experts import Stack, expert_counts, said_counts
from miniwin.zoo.importing.families.cohere2 import interleaved
from miniwin.zoo.importing.families.gemma3 import in_language_model, text_config
from miniwin.zoo.importing.family import CannotSay, Fields, Rule
from miniwin.zoo.importing.rope import rope_position, rope_table
from miniwin.zoo.importing.words import Words

FULL, CHUNKED = "full_attention", "chunked_attention"
STACK = Stack(transposed=True)
NORM = {"type": "rmsnorm", "gain": "plain"}


class Llama4(DenseFamily):
    model_types = ("llama4_text", "llama4")
    architecture = "Llama4ForCausalLM"
    other_parts = ("vision_model.", "multi_modal_projector.")
    defaults = {
        "vocab_size": 202_048,
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 131_072,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "use_qk_norm": True,
        "router_aux_loss_coef": 0.001,
        "no_rope_layer_interval": 4,
        "attention_chunk_size": 8192,
        "attn_temperature_tuning": True,
        "floor_scale": 8192,
        "attn_scale": 0.1,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(text_config(config, "llama4"), "llama4", self.defaults)
        fields.raw("router_jitter_noise")  # training only
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        layers = [
            {"attention": attention, "mlp": mlp, "norm": norm}
            for attention, mlp in zip(self._attentions(fields, asked), self._mlps(fields), strict=True)
        ]
        data = model_data(fields, name, layers, norm)
        fields.finish()
        return data

    def _attentions(self, fields: Fields, asked: Asked) -> list[dict[str, Any]]:
        """Each layer's attention."""
        turns = self._turns(fields)
        types = fields.layer_types(len(turns), (FULL, CHUNKED))
        types = [CHUNKED if turn else FULL for turn in turns] if types is None else types
        chunk = fields.maybe_count("attention_chunk_size")
        if chunk is None and CHUNKED in types:
            raise fields.refuse("attention_chunk_size", "chunked layers need one")
        same: dict[str, Any] = head_counts(fields)
        if fields.flag("attention_bias"):
            same |= {"qkv_bias": True, "o_bias": True}
        rotary = rope_position(fields, asked, rope_table(fields)[None], default_theta=500_000.0)
        rotating: dict[str, Any] = {"position": rotary | {"pairing": "interleaved"}}
        if fields.flag("use_qk_norm"):
            norm = {"type": "rmsnorm", "gain": "none", "eps": fields.real("rms_norm_eps")}
            rotating |= {"qk_norm": norm, "qk_norm_order": "after"}
        temperature = self._temperature(fields)
        if temperature is not None and any(not turn and one == CHUNKED for turn, one in zip(turns, types, strict=True)):
            raise fields.refuse(
                "layer_types",
                "temperature tuning counts all tokens, which a chunked layer without rotation does not see",
            )
        still = {"position": {"type": "nope", "logit_scale": temperature}}
        return [
            {**same, "window": None, **({"chunk": chunk} if one == CHUNKED else {}), **(rotating if turn else still)}
            for turn, one in zip(turns, types, strict=True)
        ]

    @staticmethod
    def _turns(fields: Fields) -> list[int]:
        """1 for each layer that rotates, 0 for each that does not."""
        num_layers, interval = fields.count("num_hidden_layers"), fields.count("no_rope_layer_interval")
        turns = fields.raw("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(num_layers)]
        if not isinstance(turns, list) or len(turns) < num_layers or not all(turn in (0, 1) for turn in turns):
            raise fields.refuse(
                "no_rope_layers", f"expected 1 (rotates) or 0 (does not) for each of {num_layers} layers"
            )
        return turns[:num_layers]

    @staticmethod
    def _temperature(fields: Fields) -> dict[str, Any] | None:
        floor, scale = fields.count("floor_scale"), fields.real("attn_scale")
        if not fields.flag("attn_temperature_tuning") or scale == 0:
            return None
        return {"type": "temperature", "floor": floor, "scale": positive(fields, "attn_scale")}

    @staticmethod
    def _mlps(fields: Fields) -> list[dict[str, Any]]:
        """Each layer's MLP."""
        num_layers, step = fields.count("num_hidden_layers"), fields.count("interleave_moe_layer_step")
        named = fields.raw("moe_layers")
        if named is not None and not (isinstance(named, list) and all(type(i) is int for i in named)):
            raise fields.refuse("moe_layers", "expected a list of layers' numbers")
        mixed = range(step - 1, num_layers, step) if named is None else named
        expert = gated_mlp(fields)
        mixture = {"type": "moe", **expert_counts(fields), "expert": expert, "shared": expert}
        mixture["router"] = {"type": "topk-sigmoid"}
        plain = gated_mlp(fields, size="intermediate_size_mlp")
        return [mixture if i in mixed else plain for i in range(num_layers)]

    def rules(self, spec: ModelSpec) -> list[Rule]:
        return in_language_model(super().rules(spec))

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        rules = [
            *norm_rules(layer, ours, theirs),
            *attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn"),
        ]
        mlp, ours, theirs = layer.mlp, f"{ours}.mlp", f"{theirs}.feed_forward"
        if mlp.type != "moe":
            return [*rules, *mlp_rules(mlp, ours, theirs)]
        return [
            *rules,
            *mlp_rules(mlp.shared, f"{ours}.shared", f"{theirs}.shared_expert"),
            Rule((f"{ours}.router.weight",), (f"{theirs}.router.weight",)),
            STACK.rule(f"{ours}.experts", f"{theirs}.experts", mlp.num_experts),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "llama4")
        words.plain_decoder()
        words.must("residual", "pre")
        words.plain_attention("chunk")
        words.must("attention.window", None)
        return {
            **basic_config(words, "llama4_text", self.architecture),
            "attention_bias": one_bias(words),
            **self._said_attention(words),
            **self._said_mlps(words),
        }

    @staticmethod
    def _said_attention(words: Words) -> dict[str, Any]:
        attentions = words.each("attention")
        chunks = [attention.chunk for attention in attentions]
        rotating = [attention for attention in attentions if attention.position.type != "nope"]
        still = [attention for attention in attentions if attention.position.type == "nope"]
        for attention in still:
            if attention.qk_norm is not None:
                raise CannotSay("attention.qk_norm", "a llama4 model has none in the layers that do not rotate")
        temperature = one_of(words, "attention.position.logit_scale", (one.position.logit_scale for one in still))
        if temperature is not None and temperature.type != "temperature":
            raise CannotSay("attention.position.logit_scale", f"got {temperature.type}; a llama4 model has temperature")
        norm = one_of(words, "attention.qk_norm", (attention.qk_norm for attention in rotating))
        eps = one_eps(words, NORM)
        if norm is not None:
            one_of(words, "attention.qk_norm_order", [one.qk_norm_order for one in rotating] + ["after"])
            one_of(words, "attention.qk_norm_scope", [one.qk_norm_scope for one in rotating] + ["head"])
            if norm.model_dump(mode="json") != {"type": "rmsnorm", "gain": "none", "eps": eps}:
                raise CannotSay(
                    "attention.qk_norm", f"a llama4 model has rmsnorm without gain, and its norms' eps {eps:g}"
                )
        said: dict[str, Any] = {
            "rms_norm_eps": eps,
            "use_qk_norm": norm is not None,
            "no_rope_layers": [int(attention.position.type != "nope") for attention in attentions],
            "layer_types": [FULL if chunk is None else CHUNKED for chunk in chunks],
            "attention_chunk_size": one_of(words, "attention.chunk", (c for c in chunks if c is not None), 8192),
            "attn_temperature_tuning": temperature is not None,
        }
        if temperature is not None:
            said |= {"floor_scale": temperature.floor, "attn_scale": temperature.scale}
        position = one_of(words, "attention.position", (attention.position for attention in rotating))
        return said if position is None else said | {"rope_parameters": interleaved(position)}

    @staticmethod
    def _said_mlps(words: Words) -> dict[str, Any]:
        mlps = words.each("mlp")
        mixtures = [mlp for mlp in mlps if mlp.type == "moe"]
        plain = [mlp for mlp in mlps if mlp.type != "moe"]
        for mlp in mixtures:
            if mlp.router_bias or mlp.router.type != "topk-sigmoid":
                raise CannotSay("mlp.router", f"got {mlp.router.type}; a llama4 model has topk-sigmoid without bias")
            if mlp.shared != mlp.expert:
                raise CannotSay("mlp.shared", "a llama4 model has a shared expert just like the others")
        inner = [*plain, *(mlp.expert for mlp in mixtures)]
        activation = one_activation(words, inner, ACTIVATIONS)
        if any(mlp.bias for mlp in inner):
            raise CannotSay("mlp.bias", "got true; a llama4 model has no such biases")
        sizes = [mlp.expert.intermediate_size for mlp in mixtures]
        return {
            "hidden_act": activation,
            "moe_layers": [i for i, mlp in enumerate(mlps) if mlp.type == "moe"],
            "intermediate_size": one_of(words, "mlp.expert.intermediate_size", sizes, 8192),
            "intermediate_size_mlp": one_of(
                words, "mlp.intermediate_size", (m.intermediate_size for m in plain), 16384
            ),
            **said_counts(words, mixtures),
        }
