"""Granite 3 (IBM, 2024): Llama with four multipliers: of the embeddings, of the scores, of what each layer adds to the
stream, and of the logits, which are divided by theirs.
"""

from __future__ import annotations

import math
from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_eps, positive
from miniwin.zoo.importing.dense import ACTIVATIONS, DenseFamily, gated_mlp, head_counts, model_data
from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "rmsnorm", "gain": "plain"}


class Granite(DenseFamily):
    model_types = ("granite",)
    architecture = "GraniteForCausalLM"
    defaults = {
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": 2048,
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,  # not 1 / sqrt(head_dim)
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    }
    biases = ("attention_bias", "mlp_bias")

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "granite", self.defaults)
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        position = rope_position(fields, asked, rope_table(fields)[None])
        attention: dict[str, Any] = {**head_counts(fields), "window": None, "position": position}
        scale, residual = positive(fields, "attention_multiplier"), positive(fields, "residual_multiplier")
        if scale != attention["head_dim"] ** -0.5:
            attention["score_scale"] = scale
        attention |= self.attention_biases(fields)
        layer: dict[str, Any] = {
            "attention": attention,
            "mlp": gated_mlp(fields, fields.flag("mlp_bias")),
            "norm": norm,
        }
        if residual != 1:
            layer["residual_scale"] = residual
        num_layers = fields.count("num_hidden_layers")
        fields.layer_types(num_layers, ("full_attention",))
        data = model_data(fields, name, [layer] * num_layers, norm)
        embed, divisor = positive(fields, "embedding_multiplier"), positive(fields, "logits_scaling")
        fields.finish()
        data |= {} if embed == 1 else {"embed_scale": embed}
        return data if divisor == 1 else data | {"logit_scale": 1 / divisor}

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "granite")
        for field in ("embed_norm", "embed_positions", "logit_softcap"):
            words.outer(field, None)
        words.must("residual", "pre")
        words.plain_attention("score_scale")
        words.must("attention.window", None)
        words.must("attention.qk_norm", None)
        scale, residual = words.same("attention.score_scale"), words.same("residual_scale")
        return basic_config(words, "granite", self.architecture) | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_act": one_activation(words, words.each("mlp"), ACTIVATIONS),
            "rms_norm_eps": one_eps(words, NORM),
            "embedding_multiplier": 1.0 if spec.embed_scale is None else spec.embed_scale,
            "attention_multiplier": words.same("attention.head_dim") ** -0.5 if scale is None else scale,
            "residual_multiplier": 1.0 if residual is None else residual,
            "logits_scaling": 1.0 if spec.logit_scale is None else divisor_of(spec.logit_scale),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
            **words.biases(self.biases),
        }


def divisor_of(scale: float) -> float:
    """The number whose reciprocal is `scale`, to the bit. Raises CannotSay where no float64 is one."""
    near = 1 / scale
    for divisor in (near, math.nextafter(near, 0), math.nextafter(near, math.inf)):
        if 1 / divisor == scale:
            return divisor
    raise CannotSay("logit_scale", f"got {scale!r}; a granite model divides its logits, and no number divides by this")
