"""Fields of configurations that are drawn at random, as several families have them."""

from __future__ import annotations

import random
from typing import Any

ORIGINAL = 24  # context before scaling: tests run far beyond it
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def sizes(rng: random.Random, eps: str = "rms_norm_eps") -> dict[str, Any]:
    heads = rng.choice([2, 4, 6])
    return {
        "num_hidden_layers": rng.choice([2, 3, 4]),
        "hidden_size": heads * 8,
        "intermediate_size": rng.choice([24, 40]),
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([kv for kv in (1, 2, 3, 4, 6) if heads % kv == 0]),
        eps: rng.choice([1e-6, 1e-5, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
        "max_position_embeddings": rng.choice([64, 512]),
    }


def head_dim(rng: random.Random) -> dict[str, Any]:
    return {"head_dim": rng.choice([6, 8, 16])}


def activation(rng: random.Random) -> str:
    return rng.choice(["silu", "silu", "gelu", "gelu_pytorch_tanh", "gelu_new"])


def layer_types(rng: random.Random, said: dict[str, Any], other: str = SLIDING) -> dict[str, Any]:
    """Written out, or left to the family's default."""
    if rng.random() < 0.3:
        return {}
    return {"layer_types": [rng.choice([FULL, other]) for _ in range(said["num_hidden_layers"])]}


def scaling(rng: random.Random, theta: float, nested: bool = False) -> dict[str, Any]:
    """Rotary parameters in the form of transformers 5."""
    kind = rng.choice(["default", "linear", "yarn", "yarn", "llama3"])
    said: dict[str, Any] = {"rope_type": kind, "rope_theta": theta}
    if kind != "default":
        said["factor"] = rng.choice([1.5, 4.0, 8.0])
    if kind == "yarn":
        said["original_max_position_embeddings"] = ORIGINAL
        # Bounds that lie inside: with a context of 24 the default ones are clamped to the first pair.
        bounds = {"beta_fast": 0.5, "beta_slow": 0.02} | ({} if nested else {"truncate": False})
        extra = [{}, {"attention_factor": 0.8}, {"mscale": 1.0, "mscale_all_dim": 0.7}, bounds]
        # With beta_slow 0.1 the bounds lie where rounding them, or not, moves a pair.
        said |= rng.choice(extra if nested else [*extra, *[{"truncate": False, "beta_slow": 0.1}] * 2])
    if kind == "llama3":
        said |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL}
    return said


def mixture(rng: random.Random, number: str = "num_local_experts") -> dict[str, Any]:
    experts = rng.choice([2, 3, 5])
    return {number: experts, "num_experts_per_tok": rng.randint(1, min(experts, 3)), "router_aux_loss_coef": 0.02}
