"""The kernels of rows.c, on tensors: what is done to rows between matrix products. What they compute is said there."""

from __future__ import annotations

from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from miniwin.blocks import native

STEP = 16  # numbers of a row come in multiples of it
CHUNKS = 64  # of rows, whose sums are made apart: the same for any number of threads
CODES = {torch.float32: 0, torch.bfloat16: 1}


def fit(width: int, *tensors: Tensor) -> bool:
    """Whether rows of `width` numbers of these tensors can be given to the kernels."""
    if width % STEP or not native.ordinary(*tensors) or native.missing():
        return False
    return all(t.device.type == "cpu" and t.dtype in CODES for t in tensors)


def _at(t: Tensor | None) -> c_void_p:
    return c_void_p(None if t is None else t.data_ptr())


def _code(t: Tensor) -> c_int64:
    return c_int64(CODES[t.dtype])


def _threads() -> c_int64:
    return c_int64(torch.get_num_threads())


def rmsnorm(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype, keep: bool) -> tuple[Tensor, Tensor | None]:
    """x (..., C) without gaps, gain (C,) float32 -> the same in `dtype`, and 1 / sqrt(mean(x^2) + eps) (rows,)."""
    size, rows = x.shape[-1], x.numel() // x.shape[-1]
    out = x.new_empty(x.shape, dtype=dtype)
    inverse = x.new_empty(rows, dtype=torch.float32) if keep else None
    sizes = c_int64(rows), c_int64(size), c_float(eps), _threads()
    native.run("miniwin_rmsnorm", _at(x), _code(x), _at(gain), _at(out), _code(out), _at(inverse), *sizes)
    return out, inverse


def rmsnorm_backward(x: Tensor, gain: Tensor, inverse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, in its type, and of the gain. grad (..., C) without gaps."""
    size, rows = x.shape[-1], x.numel() // x.shape[-1]
    to_x, to_gain = torch.empty_like(x), gain.new_zeros(min(CHUNKS, rows), size)
    sizes = c_int64(len(to_gain)), c_int64(rows), c_int64(size), _threads()
    given = _at(x), _code(x), _at(gain), _at(inverse), _at(grad), _code(grad)
    native.run("miniwin_rmsnorm_backward", *given, _at(to_x), _at(to_gain), *sizes)
    return to_x, to_gain.sum(0)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, both of one type and without gaps."""
    out = torch.empty_like(gate)
    native.run("miniwin_swiglu", _at(gate), _at(up), _at(out), _code(gate), c_int64(gate.numel()), _threads())
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    to_gate, to_up = torch.empty_like(gate), torch.empty_like(up)
    given = _at(grad), _at(gate), _at(up), _at(to_gate), _at(to_up)
    native.run("miniwin_swiglu_backward", *given, _code(gate), c_int64(gate.numel()), _threads())
    return to_gate, to_up


def rotate(x: Tensor, cos: Tensor, sin: Tensor, sense: float) -> Tensor:
    """x (B, N, H, D), its last dimension contiguous; cos, sin (1 or B, N, K) float32 without gaps: channels c and c + K
    turn by their angle, `sense` 1, or back, -1."""
    batch, tokens, heads, dim = x.shape
    half = cos.shape[-1]
    out = x.new_empty(x.shape)
    strides = (c_int64 * 3)(*x.stride()[:3])
    step = c_int64(0 if cos.shape[0] == 1 else tokens * half)
    sizes = (c_int64(n) for n in (batch, tokens, heads, dim, half))
    given = _at(x), _code(x), strides, _at(cos), _at(sin), step, _at(out)
    native.run("miniwin_rotate", *given, *sizes, c_float(sense), _threads())
    return out


def softmax_loss(logits: Tensor, targets: Tensor, ignored: int, scale: float) -> Tensor:
    """Turn logits (t, V) into the gradients of their losses, in their place, and return the losses (t,) float32."""
    losses = logits.new_empty(len(logits), dtype=torch.float32)
    sizes = c_int64(len(logits)), c_int64(logits.shape[1])
    settings = c_int64(ignored), c_float(scale), _at(losses), _threads()
    native.run("miniwin_softmax_loss", _at(logits), _code(logits), *sizes, _at(targets), *settings)
    return losses


def add(to: Tensor, x: Tensor, first: bool) -> None:
    """to += x, or with `first` to = x: both without gaps and a multiple of 16 long, to float32."""
    native.run("miniwin_add", _at(to), _at(x), _code(x), c_int64(x.numel()), c_int64(not first), _threads())
