"""torch's scaled_dot_product_attention: the default for global layers and for single-token decoding.

A mask is materialised only where torch cannot infer it: never for a plain causal prefill, nor for one query that sees
every key.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from miniwin.blocks.attention_ops.call import AttentionCall, full_mask

NAME = "sdpa"


def declines(call: AttentionCall) -> str | None:
    return None


def run(call: AttentionCall) -> Tensor:
    n, m = call.q.shape[1], call.k.shape[1]
    free = call.bias is None and call.pad is None and (call.window is None or call.window >= m)
    causal = free and n == m and n > 1
    mask = None if causal or (free and n == 1) else full_mask(call).to(call.q.dtype)
    out = scaled_dot_product_attention(
        call.q.transpose(1, 2),  # (B, H, N, D)
        call.k.transpose(1, 2),
        call.v.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal,
        scale=call.scale,
        enable_gqa=call.q.shape[2] != call.k.shape[2],
    )
    return out.transpose(1, 2)
