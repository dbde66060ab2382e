"""EXAONE 4.0 (arXiv 2507.11407): norms after each part, and QK-norm per head.

Without a `sliding_window` every layer has full attention and RoPE. With one, sliding layers have RoPE, and full layers
have no position encoding.
"""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

FULL, SLIDING = "full_attention", "sliding_attention"
NOPE = {"type": "nope", "logit_scale": None}


class Exaone4(DenseFamily):
    model_types = ("exaone4",)
    architecture = "Exaone4ForCausalLM"
    defaults = {
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    }
    residual = "post"
    qk_norm = "head"

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        position = rope_position(fields, asked, rope_table(fields)[None])
        window = fields.maybe_count("sliding_window")
        types = fields.layer_types(num_layers, (FULL, SLIDING))
        pattern = fields.raw("sliding_window_pattern")  # counts only where layer_types is not given
        types = self._types(fields, window, num_layers, pattern) if types is None else types
        if window is None and SLIDING in types:
            raise fields.refuse("layer_types", "sliding layers need a sliding_window")
        full = (None, position if window is None else NOPE)
        return [(window, position) if one == SLIDING else full for one in types]

    @staticmethod
    def _types(fields: Fields, window: int | None, num_layers: int, pattern: Any) -> list[str]:
        if window is None:
            return [FULL] * num_layers
        if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
            return [FULL if (i + 1) % pattern == 0 else SLIDING for i in range(num_layers)]
        raise fields.refuse("sliding_window_pattern", "expected a positive whole number; else write out layer_types")

    def said_sights(self, words: Words) -> dict[str, Any]:
        types, window = words.layer_types(), words.sliding()
        fulls = words.position_of([i for i, one in enumerate(types) if one == FULL])
        slidings = words.position_of([i for i, one in enumerate(types) if one == SLIDING])
        if window is None and fulls.type == "nope":
            window = 4096  # no layer uses the window; its presence turns rotation off in full layers
        elif window is not None and fulls is not None and fulls.type != "nope":
            raise CannotSay(
                "attention.position", f"got {fulls.type} in a full layer; beside sliding layers it must be nope"
            )
        if fulls is not None and fulls.type == "nope" and fulls.logit_scale is not None:
            raise CannotSay("attention.position.logit_scale", "an exaone4 model does not scale its NoPE layers")
        rotary = slidings or (fulls if fulls.type != "nope" else None)
        said: dict[str, Any] = {"sliding_window": window, "layer_types": types}
        if rotary is not None:
            said["rope_parameters"] = rope_parameters(rotary, "attention.position")
        return said
