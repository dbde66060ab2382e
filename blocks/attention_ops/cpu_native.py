"""Attention on a CPU by the C kernels (blocks/native): local and global layers, padding, warm caches.

The kernels make no mask and skip hidden keys: the keys of a query have a first and a last one. Products of bfloat16 are
computed on AMX if the processor has it and head_dim is a multiple of 32, otherwise in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from miniwin.blocks import native
from miniwin.blocks.attention_ops.call import AttentionCall, dense
from miniwin.blocks.native import attention as kernels

NAME = "cpu_native"
HONOURS = frozenset({"window", "pad"})
TYPES = (torch.float32, torch.bfloat16)
FEW = 16  # queries: for more, in bfloat16 on a global layer, torch's products are faster than ours in float32


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on a CPU, not on {call.q.device.type}"
    if not native.ordinary(call.q, call.k, call.v):
        return "it is for tensors with memory of their own, neither traced nor empty"
    if reason := native.missing():
        return reason
    if reason := call.beyond(HONOURS):
        return reason
    if call.q.dtype not in TYPES or not call.q.dtype == call.k.dtype == call.v.dtype:
        return f"it is for float32 or bfloat16 throughout; this is {call.q.dtype}, {call.k.dtype} and {call.v.dtype}"
    return kernels.unfit(call.q.shape, call.k.shape)


def ill_suited(call: AttentionCall) -> str | None:
    return None if gains(call) else "on a global layer in bfloat16 torch's products are faster, except in training"


def gains(call: AttentionCall) -> bool:
    """Whether this backend is faster than those after it."""
    trains = torch.is_grad_enabled() and call.q.requires_grad
    if trains or call.window is not None or call.q.dtype != torch.bfloat16 or call.q.shape[1] <= FEW:
        return True
    return native.has_amx() and call.q.shape[-1] % kernels.AMX_STEP == 0


def run(call: AttentionCall) -> Tensor:
    q, k, v = (dense(t) for t in (call.q, call.k, call.v))
    out: Tensor = _Native.apply(q, k, v, call.scale, call.window, _whole(call.pad))
    return out


def reads(call: AttentionCall) -> bool:
    """Whether `read` can answer. It takes keys and values in any dtype that a cache stores, and records no gradient."""
    if torch.is_grad_enabled() or call.q.device.type != "cpu" or not native.ordinary(call.q, call.k, call.v):
        return False
    if native.missing() or not call.features <= HONOURS or call.q.dtype not in TYPES:
        return False
    if call.k.dtype not in native.CODES or call.v.dtype != call.k.dtype:
        return False
    return gains(call) and kernels.unfit(call.q.shape, call.k.shape) is None


def read(call: AttentionCall, scales: Sequence[Tensor] | None = None) -> Tensor:
    """Attention over a cache: (B, N, H, D) in the dtype of q. scales: of int8 keys and values, (B, M, Hkv) each.

    If there is one query, and it sees all keys, the keys may be in any order.
    """
    seen = call.window is None or call.window >= call.k.shape[1]
    window, pad = None if seen else call.window, _whole(call.pad)
    if pad is not None and call.q.shape[1] == 1:
        pad = pad.clamp(max=call.k.shape[1] - 1)  # a row that is only padding so far sees its own key
    q, k, v = (dense(t) for t in (call.q, call.k, call.v))
    return kernels.forward(q, k, v, call.scale, window, pad, scales=scales)[0]


def _whole(pad: Tensor | None) -> Tensor | None:
    return None if pad is None else pad.to(torch.int64).contiguous()


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, pad: Tensor | None
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        out, lse = kernels.forward(q, k, v, scale, window, pad, keep)
        if keep:
            ctx.save_for_backward(q, k, v, out, lse, pad)
            ctx.settings = (scale, window)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, pad = ctx.saved_tensors
        scale, window = ctx.settings
        found = kernels.backward(grads[0].contiguous(), q, k, v, out, lse, scale, window, pad)
        return *(t.to(own.dtype) for t, own in zip(found, (q, k, v), strict=True)), None, None, None
