"""The kernel of head_loss.c, on tensors: the loss of a head and its gradients. head_loss.c says what it computes."""

from __future__ import annotations

from ctypes import Structure, byref, c_float, c_int64, c_void_p

import torch
from torch import Tensor

from miniwin.blocks import native

STEP = 32  # the vocabulary and hidden_size are multiples of this
WIDEST = 4096  # the largest hidden_size
CHUNK = 512  # the most tokens at a time; larger and smaller chunks are slower


class _HeadLoss(Structure):
    """`HeadLoss` in head_loss.c, field by field."""

    _fields_ = [
        *((name, c_int64) for name in ("tokens", "vocabulary", "size", "chunk", "ignored", "threads")),
        *((name, c_void_p) for name in ("h", "w", "targets", "losses", "grad_h", "grad_w")),
        ("scale", c_float),
    ]


def fit(h: Tensor, w: Tensor, targets: Tensor) -> bool:
    """Whether the kernel takes h (T, C), w (V, C), targets (T,). It needs bfloat16 and AMX."""
    (vocabulary, size), dtypes = w.shape, (h.dtype, w.dtype)
    if vocabulary % STEP or size % STEP or size > WIDEST or dtypes != (torch.bfloat16, torch.bfloat16):
        return False
    return native.ordinary(h, w, targets) and h.device.type == "cpu" and native.has_amx()


def head_loss(
    h: Tensor, w: Tensor, targets: Tensor, ignored: int, scale: float, chunk: int, grads: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Cross-entropy of the logits scale h w^T at the targets, and the gradients of the sum of losses, divided by scale.

    h (T, C), w (V, C), targets (T,) -> losses (T,) float32, and the gradients of h (T, C) bfloat16 and of w (V, C)
    float32. grads: whether each of the two gradients is wanted. All tensors are contiguous. A target is within the
    vocabulary, or `ignored`: its loss is then 0.

    Raises:
        MemoryRefused: the kernel could not allocate memory for the logits of a chunk.
    """
    losses = h.new_empty(len(h), dtype=torch.float32)
    grad_h = torch.empty_like(h) if grads[0] else None
    grad_w = torch.empty_like(w, dtype=torch.float32) if grads[1] else None
    sizes = len(h), *w.shape, min(chunk, CHUNK)
    call = _HeadLoss(*sizes, ignored, torch.get_num_threads(), scale=scale)
    call.h, call.w, call.targets, call.losses = (t.data_ptr() for t in (h, w, targets, losses))
    call.grad_h, call.grad_w = (None if t is None else t.data_ptr() for t in (grad_h, grad_w))
    native.run("miniwin_head_loss", byref(call))
    return losses, grad_h, grad_w
