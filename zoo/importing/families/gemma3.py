"""Gemma 3 (arXiv 2503.19786): Gemma 2 without soft-capped scores and with QK-norm per head. There are five sliding
layers to one full layer, and each of the two kinds has its own rotary parameters.

Of a multimodal model (`gemma3`) only the language model is imported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import one_eps
from miniwin.zoo.importing.families.gemma2 import FULL, NORM, SLIDING, Gemma2
from miniwin.zoo.importing.family import Fields, Rule, UserError
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

THETA = {FULL: 1_000_000.0, SLIDING: 10_000.0}
OLD_THETA = {FULL: "rope_theta", SLIDING: "rope_local_base_freq"}


class Gemma3(Gemma2):
    model_types = ("gemma3_text", "gemma3")
    architecture = "Gemma3ForCausalLM"
    other_parts = ("vision_tower.", "multi_modal_projector.")
    defaults = Gemma2.defaults | {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "max_position_embeddings": 131_072,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "sliding_window_pattern": 6,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        text = text_config(config, "gemma3")
        if text is not config and text.get("final_logit_softcapping") is not None:
            raise UserError(
                f"final_logit_softcapping: got {text['final_logit_softcapping']}; transformers applies it in "
                "gemma3_text models and not in gemma3 ones; set it to null"
            )
        return super().spec(text, name, asked)

    def more(self, fields: Fields, norm: dict[str, Any]) -> dict[str, Any]:
        fields.only("attn_logit_softcapping", why="transformers has the field and does not apply it; set it to null")
        return {"qk_norm": norm}

    def types(self, fields: Fields, num_layers: int) -> list[str]:
        types = fields.layer_types(num_layers, (FULL, SLIDING))
        pattern = fields.count("sliding_window_pattern")  # counts only where layer_types is not given
        fields.raw("_sliding_window_pattern")  # transformers writes it beside layer_types, and does not read it
        return [SLIDING if (i + 1) % pattern else FULL for i in range(num_layers)] if types is None else types

    def positions(self, fields: Fields, asked: Asked) -> dict[str, dict[str, Any]]:
        if fields.raw("rope_scaling"):  # the older form, for the full layers only
            if fields.raw("rope_parameters"):
                raise fields.refuse("rope_scaling", "rope_parameters says it too; keep rope_parameters only")
            table: dict[str | None, dict[str, Any]] = {FULL: fields.mapping("rope_scaling")}
        else:
            table = rope_table(fields, (FULL, SLIDING))
            if table.get(None):
                raise fields.refuse("rope_parameters", f"expected them by layer type: {FULL} and {SLIDING}")
        found = {}
        for kind in (FULL, SLIDING):
            parameters = dict(table.get(kind, {}))
            older = fields.raw(OLD_THETA[kind])
            if parameters.get("rope_theta") is None:
                parameters["rope_theta"] = THETA[kind] if older is None else older
            found[kind] = rope_position(fields, asked, parameters, nested=True)
        return found

    def rules(self, spec: ModelSpec) -> list[Rule]:
        return in_language_model(super().rules(spec))

    def said(self, words: Words) -> dict[str, Any]:
        words.must("attention.softcap", None)
        words.must("attention.qk_norm_scope", "head")
        words.must("attention.qk_norm_order", "before")
        types = words.layer_types()
        table = {}
        for kind in (FULL, SLIDING):
            position = words.position_of([i for i, one in enumerate(types) if one == kind])
            if position is not None:
                table[kind] = rope_parameters(position, "attention.position", nested=True)
        norms = [("attention.qk_norm", norm) for norm in words.each("attention.qk_norm")]
        return {"rms_norm_eps": one_eps(words, NORM, norms), "rope_parameters": table}


def text_config(config: dict[str, Any], multimodal: str) -> dict[str, Any]:
    """The language model's part of a multimodal config; any other config as it is. Raises UserError."""
    if config.get("model_type") != multimodal:
        return config
    text = config.get("text_config")
    if not isinstance(text, dict):
        raise UserError(f"text_config: expected the language model's fields in a {multimodal} config")
    outside = {key: config[key] for key in ("tie_word_embeddings", "quantization_config") if key in config}
    for key, value in outside.items():
        if text.get(key, value) != value:
            raise UserError(f"{key}: got {value} and, in text_config, {text[key]}; make them agree")
    return {**text, **outside}


def in_language_model(rules: list[Rule]) -> list[Rule]:
    """The rules, which then also find the language model inside a multimodal model."""

    def inside(name: str) -> str:
        return f"language_model.{name}"

    return [
        replace(
            rule,
            instead=(replace(rule, theirs=tuple(map(inside, rule.theirs)), copies=tuple(map(inside, rule.copies))),),
        )
        for rule in rules
    ]
