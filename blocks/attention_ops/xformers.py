"""xformers' memory_efficient_attention, on CUDA.

Which bias says what we mean (checked by materialising, in the tests): `LowerTriangularMask` for a causal prefill,
`LowerTriangularFromBottomRightMask` for queries fewer than keys, and
`LowerTriangularFromBottomRightLocalAttentionMask(W)` for a window of W keys with self. In inference grouped-query heads
use the five-dimensional layout (B, N, Hkv, H/Hkv, D), keys and values expanded without a copy; in training they are
repeated, since no backward takes the expanded ones.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention_ops.call import AttentionCall

NAME = "xformers"


@cache
def _installed() -> bool:
    return importlib.util.find_spec("xformers") is not None


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cuda":
        return f"its kernels need CUDA, not {call.q.device.type}"
    if not _installed():
        return "xformers is not installed"
    reason = call.beyond({"window"})
    if reason is not None:
        return reason
    if call.q.shape[-1] % 8 or call.q.shape[-1] > 256:
        return f"its kernels take head dims that are a multiple of 8 and at most 256, not {call.q.shape[-1]}"
    if call.q.dtype == torch.float64:
        return "its kernels do not take float64"
    if call.q.dtype not in (torch.float16, torch.bfloat16) and call.q.requires_grad:
        return f"its fast kernels take float16 or bfloat16, not {call.q.dtype}"
    return None


def bias_class(num_queries: int, num_keys: int, window: int | None) -> Any:
    """The xformers bias that shows a query the keys 0 <= i - j < window."""
    from xformers.ops import fmha

    if window is not None and window < num_keys:
        return fmha.attn_bias.LowerTriangularFromBottomRightLocalAttentionMask(window)
    if num_queries == 1:
        return None
    if num_queries == num_keys:
        return fmha.attn_bias.LowerTriangularMask()
    return fmha.attn_bias.LowerTriangularFromBottomRightMask()


def run(call: AttentionCall) -> Tensor:
    from xformers.ops import memory_efficient_attention

    n, m = call.q.shape[1], call.k.shape[1]
    heads, kv_heads = call.q.shape[2], call.k.shape[2]
    q, k, v = call.q, call.k, call.v
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    if heads != kv_heads and training:  # no operator has a backward for expanded keys
        k, v = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (k, v))
    elif heads != kv_heads:
        group = heads // kv_heads
        q = q.unflatten(2, (kv_heads, group))  # (B, N, Hkv, H/Hkv, D)
        k = k.unsqueeze(3).expand(-1, -1, -1, group, -1)
        v = v.unsqueeze(3).expand(-1, -1, -1, group, -1)
    out = memory_efficient_attention(q, k, v, attn_bias=bias_class(n, m, call.window), scale=call.scale)
    return out.reshape(call.q.shape)  # type: ignore[no-any-return]
