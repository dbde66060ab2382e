"""Phi-3 (arXiv 2404.14219): Llama with q, k and v in one matrix, and gate and up in another. A model may have a window
in every layer, rotate only a part of each head, and use LongRoPE.

`original_max_position_embeddings` stands outside the rotary parameters, and counts over a value inside them. `su` and
`yarn` are old names of LongRoPE here.
"""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight, norm_rules
from miniwin.zoo.importing.family import CannotSay, Fields, Rule, join_rows, split_rows
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words


class Phi3(DenseFamily):
    model_types = ("phi3",)
    architecture = "Phi3ForCausalLM"
    defaults = {
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
    }

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        parameters = rope_table(fields)[None]
        kind = parameters.get("rope_type") or parameters.get("type") or "default"
        if kind in ("su", "yarn"):
            parameters["rope_type"] = "longrope"
        elif kind not in ("default", "longrope"):
            raise fields.refuse("rope_parameters", "a phi3 model has rope_type default or longrope")
        original = fields.count("original_max_position_embeddings")
        position = rope_position(fields, asked, parameters, original=original, partial=True)
        window = fields.maybe_count("sliding_window")
        fields.layer_types(num_layers, ("full_attention" if window is None else "sliding_attention",))
        for field in ("full_attn_mod", "interpolate_factor"):  # in some published configs
            fields.only(field, 1, why="transformers' phi3 does not look at it; expected 1, which changes nothing")
        return [(window, position)] * num_layers

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        attention, mlp = layer.attention, layer.mlp
        q, kv = attention.num_heads * attention.head_dim, attention.num_kv_heads * attention.head_dim
        return [
            *norm_rules(layer, ours, theirs),
            Rule(
                tuple(f"{ours}.attention.{part}_proj.weight" for part in "qkv"),
                (f"{theirs}.self_attn.qkv_proj.weight",),
                split_rows(q, kv, kv),
                join_rows,
            ),
            Rule((f"{ours}.attention.o_proj.weight",), (f"{theirs}.self_attn.o_proj.weight",)),
            Rule(
                (f"{ours}.mlp.gate_proj.weight", f"{ours}.mlp.up_proj.weight"),
                (f"{theirs}.mlp.gate_up_proj.weight",),
                split_rows(mlp.intermediate_size, mlp.intermediate_size),
                join_rows,
            ),
            Rule((f"{ours}.mlp.down_proj.weight",), (f"{theirs}.mlp.down_proj.weight",)),
        ]

    def said_sights(self, words: Words) -> dict[str, Any]:
        position = words.same("attention.position")
        parameters = rope_parameters(position, "attention.position", partial=True)
        if parameters["rope_type"] not in ("default", "longrope"):
            raise CannotSay("attention.position.scaling", f"got {parameters['rope_type']}; phi3 has only longrope")
        if words.spec.hidden_size != words.same("attention.num_heads") * words.same("attention.head_dim"):
            raise CannotSay("attention.head_dim", "a phi3 config has hidden_size / num_heads")
        said = {"sliding_window": words.same("attention.window"), "rope_parameters": parameters}
        parameters.setdefault("partial_rotary_factor", 1.0)
        original = parameters.get("original_max_position_embeddings")
        return said | ({} if original is None else {"original_max_position_embeddings": original})
