"""OLMo 3 (Allen Institute for AI, 2025): norms after each part instead of before it, QK-norm over the whole projection.

Three of four layers, or those that `layer_types` names, have a window. Rotary parameters are by layer type; a scaling
in the older form is for the full layers only.
"""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

FULL, SLIDING = "full_attention", "sliding_attention"
THETA = 500_000.0


class Olmo3(DenseFamily):
    model_types = ("olmo3",)
    architecture = "Olmo3ForCausalLM"
    defaults = {
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 2048,
        "sliding_window": 4096,
    }
    residual = "post"
    qk_norm = "all"
    biases = ("attention_bias",)

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        types = fields.layer_types(num_layers, (FULL, SLIDING))
        if types is None:
            types = [FULL if (i + 1) % 4 == 0 else SLIDING for i in range(num_layers)]
        window = fields.maybe_count("sliding_window")
        if window is None and SLIDING in types:
            raise fields.refuse("sliding_window", "sliding layers need one")
        positions = self._positions(fields, asked, set(types))
        return [(window if one == SLIDING else None, positions[one]) for one in types]

    def _positions(self, fields: Fields, asked: Asked, used: set[str]) -> dict[str, dict[str, Any]]:
        if fields.raw("rope_scaling"):  # the older form, which adds to the full layers' parameters
            if fields.raw("rope_parameters"):
                raise fields.refuse("rope_scaling", "rope_parameters says it too; keep rope_parameters only")
            parameters: dict[str | None, dict[str, Any]] = {FULL: fields.mapping("rope_scaling")}
        else:
            parameters = rope_table(fields, (FULL, SLIDING))
            if parameters.get(None):
                raise fields.refuse("rope_parameters", f"expected them by layer type: {FULL} and {SLIDING}")
        theta = fields.raw("rope_theta")
        without = [kind for kind in used if parameters.get(kind, {}).get("rope_theta") is None]
        if theta is not None and theta != THETA and SLIDING in without:
            raise fields.refuse(
                "rope_theta",
                "transformers 5 reads it for the full layers only, earlier versions for all; write rope_parameters "
                f"with a rope_theta for {FULL} and for {SLIDING}",
            )
        return {
            kind: rope_position(fields, asked, parameters.get(kind, {}), default_theta=THETA, nested=True)
            for kind in sorted(used)
        }

    def said_sights(self, words: Words) -> dict[str, Any]:
        types = words.layer_types()
        table = {}
        for kind in (FULL, SLIDING):
            position = words.position_of([i for i, one in enumerate(types) if one == kind])
            if position is not None:
                table[kind] = rope_parameters(position, "attention.position", nested=True)
        window = words.sliding() or self.defaults["sliding_window"]  # transformers wants one even where no layer has it
        return {"sliding_window": window, "layer_types": types, "rope_parameters": table}
