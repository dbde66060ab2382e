"""SmolLM3 (Hugging Face, 2025): Llama without position encoding in some layers, by default in every fourth. In
`no_rope_layers` 1 stands for a layer that rotates, 0 for one that does not. If the model has a window, by default the
layers that do not rotate have it.
"""

from __future__ import annotations

from typing import Any

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import DenseFamily, Sight
from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NOPE = {"type": "nope", "logit_scale": None}


class SmolLM3(DenseFamily):
    model_types = ("smollm3",)
    architecture = "SmolLM3ForCausalLM"
    defaults = {
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "no_rope_layer_interval": 4,
    }
    biases = ("attention_bias", "mlp_bias")

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        position = rope_position(fields, asked, rope_table(fields)[None], default_theta=2_000_000.0)
        rotates = fields.counts("no_rope_layers", num_layers)
        interval = fields.count("no_rope_layer_interval")
        if rotates is None:
            rotates = [int((i + 1) % interval != 0) for i in range(num_layers)]
        if not set(rotates) <= {0, 1}:
            raise fields.refuse("no_rope_layers", "expected 1 (rotates) or 0 (does not) for each layer")
        fields.raw("max_window_layers")  # the published config has it, and the model does not look at it
        window, used = fields.maybe_count("sliding_window"), fields.flag("use_sliding_window")
        types = fields.layer_types(num_layers, ("full_attention", "sliding_attention"))
        if types is None:
            types = ["sliding_attention" if used and window and not turn else "full_attention" for turn in rotates]
        if "sliding_attention" in types and not (used and window):
            raise fields.refuse("layer_types", "sliding layers need sliding_window, and use_sliding_window: true")
        return [
            (window if one == "sliding_attention" else None, position if turn else NOPE)
            for one, turn in zip(types, rotates, strict=True)
        ]

    def said_sights(self, words: Words) -> dict[str, Any]:
        rotates = [int(kind != "nope") for kind in words.each("attention.position.type")]
        for layer, turn in zip(words.layers, rotates, strict=True):
            if not turn and layer.attention.position.logit_scale is not None:
                raise CannotSay("attention.position.logit_scale", "a smollm3 model does not scale its NoPE layers")
        position = words.position_of([i for i, turn in enumerate(rotates) if turn])
        window = words.sliding()
        said: dict[str, Any] = {"no_rope_layers": rotates, "layer_types": words.layer_types()}
        said |= {"use_sliding_window": window is not None, "sliding_window": window}
        if position is not None:
            said["rope_parameters"] = rope_parameters(position, "attention.position")
        return said
