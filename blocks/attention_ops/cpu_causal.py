"""Global causal attention in bfloat16 on a CPU, for training with narrow heads. The backward is in float32.

torch's CPU kernel is faster in bfloat16 in the forward. For heads of fewer than 64 channels its bfloat16 backward takes
up to twice as long as in float32. So the backward widens q, k, v, the output and its gradient, and narrows the results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from miniwin.blocks.attention_ops.call import AttentionCall, dense, one_query

NAME = "cpu_causal"
NARROW = 64  # channels of a head; from here on the backward in bfloat16 is no slower

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on a CPU, not on {call.q.device.type}"
    if call.window is not None:
        return "it is for a global layer"
    if call.offset:
        return "it is for training, without a cache"
    return call.beyond(())


def ill_suited(call: AttentionCall) -> str | None:
    if reason := one_query(call):
        return reason
    trains = torch.is_grad_enabled() and call.q.requires_grad
    if trains and call.q.dtype == torch.bfloat16 and call.q.shape[-1] < NARROW:
        return None
    return "it gains in training in bfloat16, with narrow heads; sdpa does the rest as well"


def run(call: AttentionCall) -> Tensor:
    q, k, v = (dense(t).transpose(1, 2) for t in (call.q, call.k, call.v))  # (B, H, N, D), (B, Hkv, N, D)
    out: Tensor = _Causal.apply(q, k, v, call.scale)
    return out.transpose(1, 2)


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        out, log_sums = _flash(q, k, v, is_causal=True, scale=scale)
        ctx.save_for_backward(q, k, v, out, log_sums)
        ctx.scale = scale
        return out  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *narrow, log_sums = ctx.saved_tensors
        grad, q, k, v, out = (t.to(log_sums.dtype) for t in (grads[0], *narrow))
        wide = _flash_backward(dense(grad), q, k, v, out, log_sums, 0.0, True, scale=ctx.scale)
        return *(t.to(narrow[0].dtype) for t in wide), None
