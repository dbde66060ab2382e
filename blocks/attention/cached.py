"""The attention of one new token over a cache.

The query sees every key that the cache hands out, so no mask is needed, and the order of keys does not matter. The
query heads that share a key/value head become rows of one small matrix, so the cache is read once for all of them.
Reading the cache is most of the cost of a decoding step.

Keys and values may be in the dtype that the cache stores. The C kernel (cpu_native) takes any, and is asked first.
Without the C kernel, torch's kernel takes half precision as it is. Int8 is widened a few hundred tokens at a time, so
that only int8 passes through memory. Scales multiply scores and weights, which are fewer numbers than keys and values:

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
WIDENED_ON_CUDA = 1 << 24  # on CUDA, where each piece launches a few more kernels: 64 MiB


def attend_cached(call: AttentionCall, scales: Sequence[Tensor] | None = None) -> Tensor:
    """`attend` for keys and values as a cache stores them: (B, N, H, Dv) in the dtype of the queries.

    scales: of int8 keys and values, (B, M, Hkv) each.
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
    """Whether the call has one query, which sees all keys, in inference."""
    m = call.k.shape[1]
    seen = call.window is None or call.window >= m
    return call.q.shape[1] == 1 and seen and not torch.is_grad_enabled() and call.features <= HONOURS


def _step(call: AttentionCall) -> Tensor:
    """torch's kernel in the dtype of the stored keys: widening a long cache would cost far more than the attention."""
    groups = call.q.unflatten(2, (call.k.shape[2], -1))[:, 0]  # (B, Hkv, H/Hkv, D)
    k, v = call.k.transpose(1, 2), call.v.transpose(1, 2)  # (B, Hkv, M, D)
    hidden = hidden_keys(call, k.dtype)
    out = scaled_dot_product_attention(groups.to(k.dtype), k, v, hidden, scale=call.scale)
    return out.flatten(1, 2).unsqueeze(1).to(call.q.dtype)  # (B, Hkv, H/Hkv, D) -> (B, 1, H, D)


def _int8_step(call: AttentionCall, k_scale: Tensor, v_scale: Tensor) -> Tensor:
    kv_heads, size = call.k.shape[2], _at_a_time(call)
    q = call.q.unflatten(2, (kv_heads, -1))[:, 0].to(call.wide) * call.scale  # (B, Hkv, H/Hkv, D)
    pieces = [q @ piece.transpose(1, 2).to(q.dtype).transpose(-1, -2) for piece in call.k.split(size, 1)]
    scores = torch.cat(pieces, -1).mul_(k_scale.transpose(1, 2).unsqueeze(2))  # (B, Hkv, H/Hkv, M)
    hidden = hidden_keys(call, scores.dtype)
    weights = torch.softmax(scores if hidden is None else scores + hidden, -1) * v_scale.transpose(1, 2).unsqueeze(2)
    parts = zip(weights.split(size, -1), call.v.split(size, 1), strict=True)
    out = torch.stack([part @ piece.transpose(1, 2).to(q.dtype) for part, piece in parts]).sum(0)
    return out.flatten(1, 2).unsqueeze(1).to(call.q.dtype)  # (B, Hkv, H/Hkv, D) -> (B, 1, H, D)


def _at_a_time(call: AttentionCall) -> int:
    """The number of tokens of an int8 cache that are widened at a time."""
    batch, _, kv_heads, width = call.k.shape
    return max(64, (WIDENED_ON_CUDA if call.k.device.type == "cuda" else WIDENED) // (batch * kv_heads * width))


def hidden_keys(call: AttentionCall, dtype: torch.dtype) -> Tensor | None:
    """Leading padding as an additive mask (B, 1, 1, M); None if there is no padding."""
    if call.pad is None:
        return None
    m = call.k.shape[1]
    # A row that is nothing but padding so far sees its own key: softmax needs at least one.
    seen = torch.arange(m, device=call.q.device) >= call.pad.clamp(max=m - 1).unsqueeze(1)
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, float("-inf"))[:, None, None]
