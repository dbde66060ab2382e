"""The structures of step.c and few_product.h, filled from tensors. Those files say what the fields mean."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

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
        *((name, _Address) for name in ("cos", "sin", "query_scale", "held")),
        *((name, _Whole) for name in ("helds", "heads", "kv_heads", "dim", "half", "angle_step", "scale_step")),
        ("score_scale", ctypes.c_float),
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


def floats(layers: Sequence[LayerStep], size: int) -> int:
    """The floats of working memory that a step needs for each row. size: hidden_size."""
    return size + max(max(one.dim * (3 * one.heads + 2 * one.kv_heads), 2 * one.gate.outs) for one in layers)


def run(layers: Any, h: Tensor, norm: Norm, head: Matrix, room: Tensor, tokens: int = 1) -> Tensor:
    """h (rows, C) float32 through all layers and the head -> logits (rows, V). Overwrites h.

    tokens: rows, if they are tokens of one row that follow each other, or else 1. room: working memory, `floats` for
    each row.

    Raises:
        MemoryRefused: the kernel could not allocate memory.
    """
    rows, size = h.shape
    logits = h.new_empty(rows, head.outs)
    sizes = _Whole(len(layers)), _Address(h.data_ptr()), _Whole(rows), _Whole(tokens), _Whole(size)
    given = ctypes.byref(norm), ctypes.byref(head), _Address(logits.data_ptr()), _Address(room.data_ptr())
    native.run("miniwin_step", layers, *sizes, *given, _Whole(torch.get_num_threads()))
    return logits
