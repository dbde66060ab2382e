"""Command R7B (Cohere, 2024), which transformers calls Cohere 2.

Three of four layers, or those that `layer_types` names, have a window and interleaved RoPE; the others have no position
encoding. Attention and MLP stand side by side after one LayerNorm without bias. Logits are scaled.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_bias, one_eps, positive
from miniwin.zoo.importing.dense import ACTIVATIONS, DenseFamily, gated_mlp, head_counts, model_data
from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

FULL, SLIDING = "full_attention", "sliding_attention"
NOPE = {"type": "nope", "logit_scale": None}
NORM = {"type": "layernorm", "bias": False}
# Fields of published configs that only repeat what this architecture is, and the values that do.
SAYS_THE_SAME: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("rope_gptj",),
    "rotary_pct": (1, 1.0),
    "order_of_interleaved_layers": ("local_attn_first",),
    "use_parallel_block": (True,),
    "use_parallel_embedding": (False,),
    "use_gated_activation": (True,),
    "use_qk_norm": (False,),
}


class Cohere2(DenseFamily):
    model_types = ("cohere2",)
    architecture = "Cohere2ForCausalLM"
    residual = "parallel"
    defaults = {
        "hidden_act": "silu",
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "cohere2", self.defaults)
        for field, values in SAYS_THE_SAME.items():
            fields.only(
                field,
                *values,
                why="transformers' cohere2 models differ from this; remove the field if it changes nothing",
            )
        types = self._types(fields, fields.count("num_hidden_layers"))
        window = fields.maybe_count("sliding_window")
        if window is None and SLIDING in types:
            raise fields.refuse("sliding_window", "sliding layers need one")
        rotary = rope_position(fields, asked, rope_table(fields)[None]) | {"pairing": "interleaved"}
        heads: dict[str, Any] = head_counts(fields)
        if fields.flag("attention_bias"):
            heads |= {"qkv_bias": True, "o_bias": True}
        norm = {**NORM, "eps": fields.real("layer_norm_eps")}
        same = {"mlp": gated_mlp(fields), "norm": norm, "residual": "parallel"}
        sights: dict[str, dict[str, Any]] = {
            SLIDING: {"window": window, "position": rotary},
            FULL: {"window": None, "position": NOPE},
        }
        data = model_data(fields, name, [{"attention": {**heads, **sights[one]}, **same} for one in types], norm)
        scale = positive(fields, "logit_scale")
        if scale != 1:
            data["logit_scale"] = scale
        fields.only("use_embedding_sharing", data["tie_word_embeddings"], why="tie_word_embeddings says otherwise")
        fields.finish()
        return data

    @staticmethod
    def _types(fields: Fields, num_layers: int) -> list[str]:
        types = fields.layer_types(num_layers, (FULL, SLIDING))
        pattern = fields.count("sliding_window_pattern")  # counts only where layer_types is not given
        if types is None:
            types = [SLIDING if (i + 1) % pattern else FULL for i in range(num_layers)]
        switch = fields.maybe_count("layer_switch")
        if switch is not None and types != [SLIDING if (i + 1) % switch else FULL for i in range(num_layers)]:
            raise fields.refuse("layer_switch", "layer_types, or sliding_window_pattern, says otherwise; remove it")
        return types

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "cohere2")
        for field in ("embed_scale", "embed_norm", "logit_softcap"):
            words.outer(field, None)
        words.must("residual", "parallel")
        words.plain_attention()
        words.must("attention.qk_norm", None)
        words.must("mlp.bias", False)
        types = words.layer_types()
        said = basic_config(words, "cohere2", self.architecture) | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_act": one_activation(words, words.each("mlp"), ACTIVATIONS),
            "layer_norm_eps": one_eps(words, NORM),
            "logit_scale": 1.0 if spec.logit_scale is None else spec.logit_scale,
            "attention_bias": one_bias(words),
            "sliding_window": words.sliding() or 4096,  # transformers wants one even where no layer has it
            "layer_types": types,
        }
        full = words.position_of([i for i, one in enumerate(types) if one == FULL])
        if full is not None and (full.type != "nope" or full.logit_scale is not None):
            raise CannotSay("attention.position", f"got {full.type} in a full layer; cohere2 has unscaled nope there")
        rotary = words.position_of([i for i, one in enumerate(types) if one == SLIDING])
        if rotary is not None:
            said["rope_parameters"] = interleaved(rotary)
        return said


def interleaved(position: Any) -> dict[str, Any]:
    """`rope_parameters` of a family that always rotates neighbouring channels together. Raises CannotSay."""
    if position.type == "rope" and position.pairing != "interleaved":
        raise CannotSay("attention.position.pairing", f"got {position.pairing}; this config means interleaved")
    plain = position.model_copy(update={"pairing": "half"}) if position.type == "rope" else position
    return rope_parameters(plain, "attention.position")
