"""One new token's attention over a cache.

A query sees every key it is given, so no mask is needed and the keys' order does not matter. The query heads that share
a key/value head become the rows of one small matrix: the cache is read once for all of them, not once for each, and
reading it is what a decoding step costs.

Keys and values may be in the dtype that the cache stores them in: our own kernel (cpu_native) takes any, and is asked
first. Without it, half precision goes to torch's kernel as it is, and int8 is widened a few hundred tokens at a time,
so that only int8 passes through memory; the scales enter where they are fewest:

    s_ij = <q_i, k8_j> * k_scale_j,     out_i = sum_j (softmax(s_i)_j * v_scale_j) v8_j

Shapes as in AttentionCall, with N = 1: q (B, 1, H, D), k and v (B, M, Hkv, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from miniwin.blocks.attention_ops import AttentionCall, attend, cpu_native, may_use, steps_by_sdpa
from miniwin.blocks.int8 import widened

HONOURS = frozenset({"window", "pad", "value_dim"})


WIDENED = 1 << 17  # numbers that are widened from int8 at a time: 512 KiB of float32
WIDENED_ON_CUDA = 1 << 24  # there, where each time is a few kernels more to launch: 64 MiB


def attend_cached(call: AttentionCall, scales: Sequence[Tensor] | None = None) -> Tensor:
    """`attend`, for keys and values as a cache stores them, with their scales (B, M, Hkv) if in int8.

    (B, N, H, Dv) in the queries' dtype.
    """
    if may_use(cpu_native) and cpu_native.reads(call):
        return cpu_native.read(call, scales)
    if _is_step(call) and steps_by_sdpa(call):
        return _step(call) if scales is None else _int8_step(call, *scales)
    dtype = call.q.dtype
    if scales is None:
        k, v = call.k.to(dtype), call.v.to(dtype)
    else:
        k, v = (widened(t, scale, dtype) for t, scale in zip((call.k, call.v), scales, strict=True))
    return attend(replace(call, k=k, v=v))


def _is_step(call: AttentionCall) -> bool:
    m = call.k.shape[1]
    seen = call.window is None or call.window >= m
    return call.q.shape[1] == 1 and seen and not torch.is_grad_enabled() and call.features <= HONOURS


def _step(call: AttentionCall) -> Tensor:
    """In the dtype of the stored keys: what widening a long cache would cost is far more than the attention itself."""
    groups = call.q.unflatten(2, (call.k.shape[2], -1))[:, 0]  # (B, Hkv, H/Hkv, D)
    k, v = call.k.transpose(1, 2), call.v.transpose(1, 2)  # (B, Hkv, M, D)
    hidden = hidden_keys(call, k.dtype)
    out = scaled_dot_product_attention(groups.to(k.dtype), k, v, hidden, scale=call.scale)
    return out.flatten(1, 2).unsqueeze(1).to(call.q.dtype)


def _int8_step(call: AttentionCall, k_scale: Tensor, v_scale: Tensor) -> Tensor:
    kv_heads, size = call.k.shape[2], _at_a_time(call)
    q = call.q.unflatten(2, (kv_heads, -1))[:, 0].to(call.wide) * call.scale  # (B, Hkv, H/Hkv, D)
    pieces = [q @ piece.transpose(1, 2).to(q.dtype).transpose(-1, -2) for piece in call.k.split(size, 1)]
    scores = torch.cat(pieces, -1).mul_(k_scale.transpose(1, 2).unsqueeze(2))  # (B, Hkv, H/Hkv, M)
    hidden = hidden_keys(call, scores.dtype)
    weights = torch.softmax(scores if hidden is None else scores + hidden, -1) * v_scale.transpose(1, 2).unsqueeze(2)
    parts = zip(weights.split(size, -1), call.v.split(size, 1), strict=True)
    out = torch.stack([part @ piece.transpose(1, 2).to(q.dtype) for part, piece in parts]).sum(0)
    return out.flatten(1, 2).unsqueeze(1).to(call.q.dtype)


def _at_a_time(call: AttentionCall) -> int:
    """How many tokens of an int8 cache are widened."""
    batch, _, kv_heads, width = call.k.shape
    return max(64, (WIDENED_ON_CUDA if call.k.device.type == "cuda" else WIDENED) // (batch * kv_heads * width))


def hidden_keys(call: AttentionCall, dtype: torch.dtype) -> Tensor | None:
    """Leading padding as an additive mask (B, 1, 1, M); None without any."""
    if call.pad is None:
        return None
    m = call.k.shape[1]
    # A row that is nothing but padding so far sees itself, so that no row is empty.
    seen = torch.arange(m, device=call.q.device) >= call.pad.clamp(max=m - 1).unsqueeze(1)
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, float("-inf"))[:, None, None]
