"""Tiny models that can be decoded in one native call, of every kind that it knows."""

from __future__ import annotations

from typing import Any

from helpers import enliven, tiny_spec

from miniwin.blocks import Decoder

ROPE = {"type": "rope"}
HARMONIC = {"type": "p-rope", "period": 14, "harmonic": True}
SCALED = {"type": "nope", "logit_scale": {"type": "log"}}
RMS = {"norm": {"type": "rmsnorm", "eps": 1e-5, "gain": "one-plus"}}


def layer(
    window: int | None, position: dict[str, Any], heads: int = 4, kv_heads: int = 2, **fields: Any
) -> dict[str, Any]:
    attention = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": 32, "window": window, "position": position}
    mlp = {"intermediate_size": 48}
    return {"attention": {**attention, **fields}, "mlp": mlp}


MODELS: dict[str, dict[str, Any]] = {
    "published p-rope, scaled nope": {
        "blocks": {"S": layer(7, {"type": "p-rope", "period": 14}), "G": layer(None, SCALED)}
    },
    "harmonic, unscaled nope": {
        "blocks": {"S": layer(7, HARMONIC), "G": layer(None, {"type": "nope", "logit_scale": None})}
    },
    "rope everywhere": {"blocks": {"S": layer(1, ROPE), "G": layer(None, ROPE)}},
    "part of the channels": {"blocks": {"G": layer(None, {**ROPE, "partial_rotary_factor": 0.5}, head_dim=64)}},
    "normed heads, biases": {
        "blocks": {"S": layer(7, HARMONIC, qk_norm=RMS["norm"], qkv_bias=True, o_bias=True), "G": layer(None, ROPE)},
    },
    "first tokens": {"blocks": {"S": layer(7, HARMONIC, keep_first=2), "T": layer(3, SCALED, keep_first=5)}},
    "heads that see differently": {
        "blocks": {
            "S": layer(None, SCALED, windows=[7, None, 3, 7, None], heads=10, kv_heads=5, keep_first=2),
            "G": layer(None, ROPE, windows=[None, 5]),
        }
    },
    "norms after": {"blocks": {"S": {**layer(7, HARMONIC), "residual": "post"}}},
    "norms around, all heads apart": {
        "blocks": {"S": {**layer(7, HARMONIC, kv_heads=4), "residual": "sandwich"}},
        **RMS,
    },
    "untied, capped and scaled": {
        "blocks": {"S": layer(7, HARMONIC, kv_heads=1)},
        "tie_word_embeddings": False,
        "logit_softcap": 3.0,
        "logit_scale": 0.5,
        "embed_scale": 2.0,
    },
}


def built(name: str, **changes: Any) -> Decoder:
    return enliven(tiny_spec(**{**MODELS[name], **changes}).build().eval())
