"""The attention kernels of attention.c, on tensors. attention.c says what they compute. Shapes as in AttentionCall."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks import native

WIDEST = 256  # the most channels of a head
GROUPS = 128  # the most query heads of a key/value head
STEP = 16  # the channels of a head are a multiple of this
AMX_STEP = 32  # for products on AMX, a multiple of this

_Whole = ctypes.c_int64
_Address = ctypes.c_void_p


class _Call(ctypes.Structure):
    """`Call` in attention.c, field by field."""

    _fields_ = [
        *((name, _Whole) for name in ("batch", "queries", "keys", "heads", "kv_heads", "dim")),
        *((name, _Whole) for name in ("window", "threads", "q_type", "kv_type")),
        *((name, _Whole * 3) for name in ("q_stride", "k_stride", "v_stride")),
        *((name, _Address) for name in ("q", "k", "v", "k_scale", "v_scale")),
        *((name, _Whole * 2) for name in ("k_scale_stride", "v_scale_stride")),
        *((name, _Address) for name in ("pad", "out", "lse", "grad", "grad_q", "grad_k", "grad_v")),
        ("scale", ctypes.c_float),
    ]


def unfit(q_shape: Sequence[int], k_shape: Sequence[int]) -> str | None:
    """Why the kernels do not take heads of these shapes; None if they do."""
    if q_shape[3] % STEP or q_shape[3] > WIDEST:
        return f"its heads have a multiple of {STEP} channels, {WIDEST} at most; these have {q_shape[3]}"
    if q_shape[2] // k_shape[2] > GROUPS:
        return f"at most {GROUPS} query heads share a key/value head; here {q_shape[2] // k_shape[2]} do"
    return None


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int | None,
    pad: Tensor | None,
    keep: bool = False,
    scales: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Output (B, N, H, D) in the dtype of q; with `keep` also the log-sum-exp (B, N, H) of the scores.

    The last dimension of each tensor is contiguous. pad (B,) int64. scales: of int8 keys and values, (B, M, Hkv) each.

    Raises:
        MemoryRefused: a kernel could not allocate memory.
    """
    call = _call(q, k, v, scale, window, pad)
    # The kernel writes no output for padding: it stays zero, and is never read.
    empty = q.new_empty if pad is None else q.new_zeros
    out = empty(q.shape)
    lse = empty(q.shape[:3], dtype=torch.float32) if keep else None
    call.out, call.lse = out.data_ptr(), None if lse is None else lse.data_ptr()
    if scales is not None:
        k_scale, v_scale = scales
        call.k_scale, call.k_scale_stride[:] = k_scale.data_ptr(), k_scale.stride()[:2]
        call.v_scale, call.v_scale_stride[:] = v_scale.data_ptr(), v_scale.stride()[:2]
    native.run("miniwin_attention_forward", ctypes.byref(call))
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    window: int | None,
    pad: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q in its dtype, of k and v in float32. grad, out: (B, N, H, D), contiguous, in the dtype of q."""
    call = _call(q, k, v, scale, window, pad)
    grad_q = (q.new_empty if pad is None else q.new_zeros)(q.shape)
    grad_k, grad_v = (t.new_zeros(t.shape, dtype=torch.float32) for t in (k, v))
    call.out, call.lse, call.grad = out.data_ptr(), lse.data_ptr(), grad.data_ptr()
    call.grad_q, call.grad_k, call.grad_v = grad_q.data_ptr(), grad_k.data_ptr(), grad_v.data_ptr()
    native.run("miniwin_attention_backward", ctypes.byref(call))
    return grad_q, grad_k, grad_v


def _call(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, pad: Tensor | None) -> _Call:
    batch, n, heads, dim = q.shape
    m, kv_heads = k.shape[1:3]
    types = native.CODES[q.dtype], native.CODES[k.dtype]
    call = _Call(batch, n, m, heads, kv_heads, dim, min(window or m, m), torch.get_num_threads(), *types)
    call.q_stride[:], call.k_stride[:], call.v_stride[:] = (t.stride()[:3] for t in (q, k, v))
    call.q, call.k, call.v = q.data_ptr(), k.data_ptr(), v.data_ptr()
    call.pad = None if pad is None else pad.data_ptr()
    call.scale = scale
    return call
