"""Gemma 2 (arXiv 2408.00118): sandwich norms whose gain is 1 + weight, GeGLU, embeddings times sqrt(hidden_size),
scores scaled by query_pre_attn_scalar^-0.5, scores and logits soft-capped. Every other layer, or those that
`layer_types` names, have a window.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, bound, one_activation, one_bias, one_eps, positive
from miniwin.zoo.importing.dense import ACTIVATIONS, DenseFamily, gated_mlp, head_counts, model_data
from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

FULL, SLIDING = "full_attention", "sliding_attention"
NORM = {"type": "rmsnorm", "gain": "one-plus"}


class Gemma2(DenseFamily):
    model_types: tuple[str, ...] = ("gemma2",)
    architecture = "Gemma2ForCausalLM"
    residual = "sandwich"
    defaults = {
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, self.model_types[0], self.defaults)
        num_layers = fields.count("num_hidden_layers")
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        heads: dict[str, Any] = head_counts(fields)
        if fields.flag("attention_bias"):
            heads |= {"qkv_bias": True, "o_bias": True}
        if positive(fields, "query_pre_attn_scalar") != heads["head_dim"]:
            heads["score_scale"] = fields.real("query_pre_attn_scalar") ** -0.5
        heads |= self.more(fields, norm)
        act = fields.raw("hidden_activation")
        fields.only("hidden_act", act, why=f"hidden_activation, which counts, is {act}; remove hidden_act")
        fields.only("use_bidirectional_attention", False, why="this attention is causal")
        types = self.types(fields, num_layers)
        window = fields.maybe_count("sliding_window")
        if window is None and SLIDING in types:
            raise fields.refuse("sliding_window", "sliding layers need one")
        fields.only("sliding_window_size", window, why=f"sliding_window, which counts, is {window}; remove it")
        positions = self.positions(fields, asked)
        same = {"mlp": gated_mlp(fields, activation="hidden_activation"), "norm": norm, "residual": "sandwich"}
        layers = [
            {"attention": {**heads, "window": window if one == SLIDING else None, "position": positions[one]}, **same}
            for one in types
        ]
        data = model_data(fields, name, layers, norm) | {"embed_scale": float(fields.count("hidden_size") ** 0.5)}
        cap = bound(fields, "final_logit_softcapping")
        fields.finish()
        return data if cap is None else data | {"logit_softcap": cap}

    def more(self, fields: Fields, norm: dict[str, Any]) -> dict[str, Any]:
        """Further fields of the attention of every layer."""
        cap = bound(fields, "attn_logit_softcapping")
        return {} if cap is None else {"softcap": cap}

    def types(self, fields: Fields, num_layers: int) -> list[str]:
        types = fields.layer_types(num_layers, (FULL, SLIDING))
        return [FULL if i % 2 else SLIDING for i in range(num_layers)] if types is None else types

    def positions(self, fields: Fields, asked: Asked) -> dict[str, dict[str, Any]]:
        """The position of each layer type."""
        return dict.fromkeys((FULL, SLIDING), rope_position(fields, asked, rope_table(fields)[None]))

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, self.model_types[0])
        for field in ("embed_norm", "logit_scale"):
            words.outer(field, None)
        words.outer("embed_scale", spec.hidden_size**0.5)
        words.must("residual", "sandwich")
        words.plain_attention("softcap", "score_scale")
        words.must("mlp.bias", False)
        return basic_config(words, self.model_types[0], self.architecture) | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_activation": one_activation(words, words.each("mlp"), ACTIVATIONS),
            "attention_bias": one_bias(words),
            "query_pre_attn_scalar": _scalar(words.same("attention.score_scale"), words.same("attention.head_dim")),
            "sliding_window": words.sliding() or 4096,  # transformers wants one even where no layer has it
            "layer_types": words.layer_types(),
            "final_logit_softcapping": spec.logit_softcap,
            "attn_logit_softcapping": words.same("attention.softcap"),
            **self.said(words),
        }

    def said(self, words: Words) -> dict[str, Any]:
        """The inverse of `more` and `positions`: fields of a config, and the epsilon of the norms."""
        words.must("attention.qk_norm", None)
        position = rope_parameters(words.same("attention.position"), "attention.position")
        return {"rms_norm_eps": one_eps(words, NORM), "rope_parameters": position}


def _scalar(scale: float | None, head_dim: int) -> int:
    """query_pre_attn_scalar, which transformers takes as a whole number."""
    if scale is None:
        return head_dim
    whole = round(scale**-2)
    if whole < 1 or abs(whole**-0.5 - scale) > 1e-12 * scale:
        raise CannotSay("attention.score_scale", f"got {scale:g}; this config has 1 / sqrt of a whole number")
    return whole
