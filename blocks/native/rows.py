"""The kernels of rows.c, on tensors: operations on rows between matrix products. rows.c says what they compute."""

from __future__ import annotations

from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from miniwin.blocks import native

STEP = 16  # the numbers of a row are a multiple of this
CHUNKS = 64  # chunks of rows, each summed by itself, so that results do not depend on the number of threads
CODES = {torch.float32: 0, torch.bfloat16: 1}


def fit(width: int, *tensors: Tensor) -> bool:
    """Whether the kernels take rows of `width` numbers of these tensors."""
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
    """x (..., C) contiguous, gain (C,) float32 -> out (..., C) in `dtype`; with `keep` also 1 / sqrt(mean(x^2) + eps)
    of each row, (rows,) float32."""
    size, rows = x.shape[-1], x.numel() // x.shape[-1]
    out = x.new_empty(x.shape, dtype=dtype)
    inverse = x.new_empty(rows, dtype=torch.float32) if keep else None
    sizes = c_int64(rows), c_int64(size), c_float(eps), _threads()
    native.run("miniwin_rmsnorm", _at(x), _code(x), _at(gain), _at(out), _code(out), _at(inverse), *sizes)
    return out, inverse


def rmsnorm_backward(x: Tensor, gain: Tensor, inverse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x (..., C), in its dtype, and of the gain (C,) float32. grad (..., C) is contiguous."""
    size, rows = x.shape[-1], x.numel() // x.shape[-1]
    to_x, to_gain = torch.empty_like(x), gain.new_zeros(min(CHUNKS, rows), size)
    sizes = c_int64(len(to_gain)), c_int64(rows), c_int64(size), _threads()
    given = _at(x), _code(x), _at(gain), _at(inverse), _at(grad), _code(grad)
    native.run("miniwin_rmsnorm_backward", *given, _at(to_x), _at(to_gain), *sizes)
    return to_x, to_gain.sum(0)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of any shape. Both are contiguous and of one dtype."""
    out = torch.empty_like(gate)
    native.run("miniwin_swiglu", _at(gate), _at(up), _at(out), _code(gate), c_int64(gate.numel()), _threads())
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up. All are contiguous and of one dtype."""
    to_gate, to_up = torch.empty_like(gate), torch.empty_like(up)
    given = _at(grad), _at(gate), _at(up), _at(to_gate), _at(to_up)
    native.run("miniwin_swiglu_backward", *given, _code(gate), c_int64(gate.numel()), _threads())
    return to_gate, to_up


def rotate(x: Tensor, cos: Tensor, sin: Tensor, sense: float) -> Tensor:
    """Rotate channels c and c + K of x (B, N, H, D) by their angle; with `sense` -1 backwards.

    The last dimension of x is contiguous. cos, sin (1 or B, N, K) are float32 and contiguous.
    """
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
    """Cross-entropy of scale * logits (t, V) at targets (t,), (t,) float32; 0 where a target is `ignored`.

    Overwrites the logits with the gradients of the losses, divided by `scale`.
    """
    losses = logits.new_empty(len(logits), dtype=torch.float32)
    sizes = c_int64(len(logits)), c_int64(logits.shape[1])
    settings = c_int64(ignored), c_float(scale), _at(losses), _threads()
    native.run("miniwin_softmax_loss", _at(logits), _code(logits), *sizes, _at(targets), *settings)
    return losses


def add(to: Tensor, x: Tensor, first: bool) -> None:
    """to += x, or with `first` to = x. Both are contiguous and a multiple of 16 long; `to` is float32."""
    native.run("miniwin_add", _at(to), _at(x), _code(x), c_int64(x.numel()), c_int64(not first), _threads())
