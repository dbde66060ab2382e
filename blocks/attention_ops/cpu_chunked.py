"""A chunk of queries on a warm cache, global, on a CPU, for inference: long prefills and evaluations in pieces.

torch's SDPA has no causal mask for fewer queries than keys, and a materialised mask costs N times M. Here two calls
need no mask: every query sees all keys before the chunk, and the chunk's own keys are plain causal. The log-sum-exps,
which the flash kernel returns, merge the two results:

    out = own + sigmoid(L_before - L_own) * (before - own)
"""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.blocks.attention_ops.call import AttentionCall, dense, one_query

NAME = "cpu_chunked"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on a CPU, not on {call.q.device.type}"
    if call.window is not None:
        return "it is for a global layer"
    if call.offset == 0:
        return "it is for a warm cache; here the queries have all the keys' tokens"
    reason = call.beyond(())
    if reason is not None:
        return reason
    if torch.is_grad_enabled() and any(t.requires_grad for t in (call.q, call.k, call.v)):
        return "it has no backward"
    return None


def ill_suited(call: AttentionCall) -> str | None:
    return one_query(call)


def run(call: AttentionCall) -> Tensor:
    q, k, v = (dense(t).transpose(1, 2) for t in (call.q, call.k, call.v))  # (B, H, N, D), (B, Hkv, M, D)
    m = call.offset
    before, log_before = _flash(q, k[:, :, :m], v[:, :, :m], scale=call.scale)
    own, log_own = _flash(q, k[:, :, m:], v[:, :, m:], is_causal=True, scale=call.scale)
    share = torch.sigmoid(log_before - log_own).unsqueeze(-1)  # (B, H, N, 1)
    return (own + (before - own) * share).to(q.dtype).transpose(1, 2)
