"""Stock models of transformers with the sizes of one of our specs.

cohere2  sliding and global layers as the spec lays them out, RoPE in sliding layers only: the nearest relative of our
         models (but parallel residual, LayerNorm)
smollm3  full attention everywhere, no positions in every fourth layer
mistral  the window in every layer

Stock classes and stock settings (SDPA attention, DynamicCache), random weights. They compute other functions than our
model, so outputs are not compared. Their sizes are checked to be the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from miniwin.specs import ModelSpec

KINDS = ("cohere2", "smollm3", "mistral")


def build(kind: str, spec: ModelSpec) -> Any:
    """A causal language model of transformers, of the spec's sizes, within 5 % of its parameters."""
    try:
        import transformers
    except ImportError:
        raise LookupError("not installed: pip install transformers") from None
    transformers.logging.set_verbosity_error()
    layers: Any = spec.layer_specs
    attention, window = layers[0].attention, next(x.attention.window for x in layers if x.attention.window)
    sizes: dict[str, Any] = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": layers[0].mlp.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "max_position_embeddings": 1 << 20,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if kind == "cohere2":
        kinds = ["full_attention" if x.attention.window is None else "sliding_attention" for x in layers]
        sizes |= {"sliding_window": window, "layer_types": kinds, "logit_scale": 1.0}
    elif kind == "mistral":
        sizes |= {"sliding_window": window, "head_dim": attention.head_dim}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    theirs, ours = sum(p.numel() for p in model.parameters()), spec.parameters()
    if abs(theirs - ours) > 0.05 * ours:
        raise ValueError(f"{kind} has {theirs:,} parameters and {spec.name} {ours:,}: not the same size")
    return model.float()


def new_cache(model: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def filled_cache(model: Any, piece: Tensor, pieces: int) -> Any:
    """A cache as after pieces * n tokens, from one random piece (1, n, Hkv, D) for every key and value."""
    cache, rows = new_cache(model), piece.transpose(1, 2).contiguous()  # (1, Hkv, n, D)
    whole = rows.repeat(1, 1, pieces, 1)
    for i in range(model.config.num_hidden_layers):
        cache.update(whole, whole, i)
        layer = cache.layers[i]  # a sliding layer holds a view of all of it otherwise
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    return cache
