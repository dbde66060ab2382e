"""Queries, keys and values on their way into attention and its cache in one kernel, where that can be (a GPU, Triton).

    projections -> QK-norm -> rotation -> cache

Written out, these are six to ten passes over memory and as many launches, which is what a decoding step on a GPU waits
for. `declines` says why a call goes that way all the same. In which dtypes it rounds: once, at the end, where the
written-out way rounds after the norm too.
"""

from __future__ import annotations

import os
from functools import cache as once
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from miniwin.blocks.cache import GrowingCache, Int8Cache, LayerCache, RingCache
from miniwin.blocks.positions.base import Positions
from miniwin.blocks.positions.rope import Rope
from miniwin.blocks.rmsnorm import RMSNorm

if TYPE_CHECKING:
    from miniwin.blocks.attention import Attention

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # kernels then run on a CPU, slowly: for tests


def declines(attention: Attention, x: Tensor, cache: LayerCache | None) -> str | None:
    """Why the kernel cannot take x (B, N, hidden_size), or None."""
    if cache is None:
        return "it writes into a cache, and there is none"
    if x.device.type != "cuda" and not INTERPRETED:
        return f"it runs on a GPU, not on {x.device.type}"
    if not _has_triton():
        return "triton is not installed"
    if torch.is_grad_enabled():
        return "it has no backward"
    if x.dtype == torch.float64:
        return "it computes in float32"
    encoding = attention.position
    if not isinstance(encoding, Rope) or type(encoding).turn is not Rope.turn:
        return f"{type(encoding).__name__} is not a plain rotation"
    norms = (attention.q_norm, attention.k_norm)
    if attention.norms_whole or attention.norms_after:
        return "it norms heads, before the rotation"
    if norms != (None, None) and not all(isinstance(n, RMSNorm) and n.weight is not None for n in norms):
        return "its norm is an RMSNorm with a gain"
    if isinstance(norms[0], RMSNorm) and isinstance(norms[1], RMSNorm) and norms[0].eps != norms[1].eps:
        return "queries and keys have different eps"
    if attention.sight.keep_first or attention.by_order:
        return "the keys are wanted in order, or more than once"
    if isinstance(cache, Int8Cache) or len(cache.stored) != 2:
        return "it stores a key and a value as they are"
    if not isinstance(cache, GrowingCache) and not (isinstance(cache, RingCache) and x.shape[1] == 1):
        return "several tokens at once see keys that a ring overwrites"
    return None


def enter(
    attention: Attention, x: Tensor, positions: Positions, cache: LayerCache
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The queries (B, N, H, D) of x (B, N, hidden_size), and the keys and values (B, M, Hkv, D) that they may see."""
    from miniwin.blocks import rotary_kernel

    encoding = attention.position
    assert isinstance(encoding, Rope)
    batch, tokens, heads, kv_heads, dim = *x.shape[:2], attention.num_heads, attention.num_kv_heads, attention.head_dim
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    cos, sin = (t.contiguous() for t in encoding.shared(positions, torch.float32))
    start = cache.length
    k_seen, v_seen = cache.claim(tokens)
    k_held, v_held = cache.stored
    assert k_held.stride(-1) == v_held.stride(-1) == 1
    q_norm: Any = attention.q_norm
    k_norm: Any = attention.k_norm
    normed = q_norm is not None
    out = torch.empty_like(q)
    rotary_kernel.enter[(batch * tokens, heads + 2 * kv_heads)](
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        cos,
        sin,
        q_norm.weight if normed else cos,  # without a norm nobody looks
        k_norm.weight if normed else cos,
        out,
        k_held,
        v_held,
        tokens,
        start,
        k_held.shape[1],
        0 if len(cos) == 1 else cos.stride(0),
        *k_held.stride()[:3],
        *v_held.stride()[:3],
        q_norm.eps if normed else 0.0,
        q_norm.offset if normed else 0.0,
        heads,
        kv_heads,
        dim,
        cos.shape[-1],
        BLOCK=1 << (dim - 1).bit_length(),
        NORMED=normed,
        INTERLEAVED=encoding.interleaved,
    )
    return out.unflatten(-1, (heads, dim)), (k_seen, v_seen)


@once
def _has_triton() -> bool:
    return find_spec("triton") is not None
