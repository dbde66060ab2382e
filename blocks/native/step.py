"""The structures of step.c and few_product.h, filled from tensors. Those files say what the fields mean."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import torch
from torch import Tensor

from miniwin.blocks import native

STEP = 16  # the numbers of a row are a multiple of this
_Whole = ctypes.c_int64
_Address = ctypes.c_void_p


class Matrix(ctypes.Structure):
    _fields_ = [
        *((name, _Address) for name in ("values", "scale", "bias")),
        *((name, _Whole) for name in ("type", "outs", "columns", "width")),
    ]


class Norm(ctypes.Structure):
    _fields_ = [("gain", _Address), ("eps", ctypes.c_float)]


class Held(ctypes.Structure):
    _fields_ = [
        *((name, _Address) for name in ("keys", "values", "k_scale", "v_scale", "pad")),
        *((name, _Whole * 3) for name in ("k_stride", "v_stride")),
        *((name, _Whole * 2) for name in ("k_scale_stride", "v_scale_stride")),
        *((name, _Whole) for name in ("kv_type", "slot", "entries", "slots", "most", "first", "count")),
    ]


class LayerStep(ctypes.Structure):
    _fields_ = [
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((f"{name}_norm", Norm) for name in ("attention", "attention_post", "mlp", "mlp_post", "q", "k")),
        *((name, _Address) for name in ("cos", "sin", "query_scale")),
        *((name, _Whole) for name in ("held", "helds", "heads", "kv_heads", "dim", "half", "angle_step", "scale_step")),
        ("score_scale", ctypes.c_float),
    ]


class Step(ctypes.Structure):
    _fields_ = [
        *((name, _Address) for name in ("layers", "norm", "head", "held", "h", "logits", "room")),
        *((name, _Whole) for name in ("count", "contexts", "rows", "tokens", "size", "floats")),
    ]


def matrix(values: Tensor, scale: Tensor | None, bias: Tensor | None, outs: int, columns: int) -> Matrix:
    """values (outs or more, columns or more), contiguous: float32, or int8 with scale (outs or more,) bfloat16."""
    addresses = values.data_ptr(), *(None if t is None else t.data_ptr() for t in (scale, bias))
    return Matrix(*addresses, native.CODES[values.dtype], outs, columns, values.shape[1])


def few_product(x: Tensor, values: Tensor, scale: Tensor, outs: int) -> Tensor:
    """x (rows, I) contiguous, int8 values (outs or more, I), scale (outs or more,) -> x W^T (rows, outs) float32."""
    out = x.new_empty(len(x), outs, dtype=torch.float32)
    w = matrix(values, scale, None, outs, x.shape[1])
    sizes = _Whole(len(x)), _Whole(torch.get_num_threads())
    given = _Address(x.data_ptr()), _Whole(native.CODES[x.dtype]), ctypes.byref(w), _Address(out.data_ptr())
    native.run("miniwin_few_product", *given, *sizes)
    return out


def floats(layers: Iterable[LayerStep], size: int) -> int:
    """The floats of working memory that a step needs for each row. size: hidden_size."""
    return size + max(max(one.dim * (3 * one.heads + 2 * one.kv_heads), 2 * one.gate.outs) for one in layers)


def run(step: Step, threads: int) -> None:
    """Take a step.

    Raises:
        MemoryRefused: the kernel could not allocate memory. Some layers then have the new tokens, others do not.
    """
    native.run("miniwin_step", ctypes.byref(step), _Whole(threads))
