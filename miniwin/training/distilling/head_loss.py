"""Next-token loss and kl straight from hidden states: both heads see one chunk of tokens at a time, as in loss.py.

    z = student's logits, z' = teacher's;   p = softmax(z' / T), q = softmax(z / T)
    loss = (1 - w) * mean (log sum exp z - z_y)  +  w * T^2 * mean sum_v p_v (log p_v - log q_v)
    dloss/dz = ((1 - w) * (softmax(z) - onehot(y)) + w * T * (q - p)) / count

The means are over the counted targets y. The gradients of hidden states and head are computed while the logits are at
hand, and held until the backward. The teacher has none.

Shapes: T tokens, t tokens of a chunk, C hidden_size, C' the teacher's, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from miniwin.blocks.matmul_library import MKL, Product, matmul
from miniwin.data.rows import IGNORED
from miniwin.training.loss import Room, count_targets, default_chunk, put

AT_ONCE = 1 << 18  # logits in the cache of a CPU's core while a softmax and its gradient pass over them several times


@dataclass(frozen=True)
class Head:
    """What makes logits of hidden states: weight (V, C), and the scale and soft cap of the logits."""

    weight: Tensor
    logit_scale: float | None = None
    logit_softcap: float | None = None


class Mixed(NamedTuple):
    """loss: what is minimised. next_token, kl: its parts, without gradients; kl with its T^2. All scalars."""

    loss: Tensor
    next_token: Tensor
    kl: Tensor


def taught_loss(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    states: Tensor,
    teacher: Head,
    temperature: float,
    weight: float,
    chunk: int | None = None,
    product: Product = MKL,
) -> Mixed:
    """The losses of hidden (..., C) and targets (...), taught by the teacher's states (..., C'). float32 or float64.

    If no target counts, the losses are NaN and the gradients 0, as in loss.py. chunk: tokens of a chunk.
    """
    device = hidden.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    flat, said = hidden.reshape(-1, hidden.shape[-1]), states.reshape(-1, states.shape[-1])  # (T, C), (T, C')
    dtypes = [
        autocast or torch.promote_types(one.dtype, its.weight.dtype) for one, its in ((flat, head), (said, teacher))
    ]
    how = _How(head, teacher, temperature, weight, chunk or default_chunk(len(head.weight), device), product)
    with torch.autocast(device, enabled=False):
        theirs = said.detach().to(dtypes[1]), teacher.weight.detach().to(dtypes[1])
        flat_targets = targets.reshape(-1).contiguous().long()
        wanted = torch.is_grad_enabled()
        found: tuple[Tensor, ...] = _Taught.apply(flat, head.weight, flat_targets, *theirs, dtypes[0], how, wanted)
    return Mixed(*found)


class _How(NamedTuple):
    head: Head
    teacher: Head
    temperature: float
    weight: float
    chunk: int
    product: Product


class _Taught(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        states: Tensor,
        teacher: Tensor,
        dtype: torch.dtype,
        how: _How,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needed = [wanted and need for need in ctx.needs_input_grad[:2]]
        count = count_targets(targets, len(weight))
        losses, *grads = _in_chunks(hidden.to(dtype), weight.to(dtype), targets, states, teacher, how, needed)
        next_token, kl = losses / count
        scale = how.head.logit_scale
        ctx.factor = (1.0 if scale is None else scale) / count.clamp(min=1).to(losses.dtype)
        ctx.save_for_backward(*grads)
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.mark_non_differentiable(next_token, kl)
        return (1 - how.weight) * next_token + how.weight * kl, next_token, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        factor, saved = ctx.factor * grads[0], ctx.saved_tensors
        found = [
            None if one is None else (one * factor).to(dtype) for one, dtype in zip(saved, ctx.dtypes, strict=True)
        ]
        return *found, *[None] * 6


def _in_chunks(
    h: Tensor, w: Tensor, targets: Tensor, states: Tensor, teacher: Tensor, how: _How, wanted: list[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(sums of next-token loss and kl (2,), gradient of h (T, C), gradient of w (V, C)), those of the sums."""
    wide = torch.float64 if h.dtype == torch.float64 else torch.float32
    totals = torch.zeros(2, dtype=wide, device=h.device)
    grad_h = torch.empty_like(h) if wanted[0] else None
    empty = torch.empty if len(h) else torch.zeros
    grad_w = empty(w.shape[::-1], dtype=wide, device=h.device) if wanted[1] else None  # (C, V), as in loss.py
    room = Room(h, w, how.chunk, wide, how.product)
    other = Room(states, teacher, how.chunk, wide, how.product)
    for start in range(0, len(h), how.chunk):
        part = slice(start, start + how.chunk)
        real = (targets[part] != IGNORED).unsqueeze(1)  # (t, 1)
        logits, bent = room.logits(h[part], how.head.logit_scale, how.head.logit_softcap)  # (t, V)
        theirs, _ = other.logits(states[part], how.teacher.logit_scale, how.teacher.logit_softcap)  # (t, V)
        size = max(1, AT_ONCE // len(w)) if h.device.type == "cpu" else how.chunk
        at = targets[part].where(real.squeeze(1), 0).unsqueeze(1)  # (t, 1)
        few = (one.split(size) for one in (logits, theirs, at, real))
        for own, said, target, counts in zip(*few, strict=True):
            totals += _pull_(own, said, target, counts, how.temperature, how.weight)
        if grad_h is None and grad_w is None:
            continue
        if bent is not None:
            logits *= bent
        pull = room.narrowed(logits)
        if grad_h is not None:
            put(matmul(pull, w, how.product, grad_h[part]), grad_h[part]).mul_(real)
        if grad_w is not None:
            room.add_product(grad_w, h[part] * real, pull, first=start == 0)
    return totals, grad_h, None if grad_w is None else grad_w.t()


def _pull_(z: Tensor, theirs: Tensor, at: Tensor, real: Tensor, temperature: float, weight: float) -> Tensor:
    """Sums of next-token loss and kl (2,) over the rows of logits z (t, V), which become their gradient.

    theirs (t, V): the teacher's logits, overwritten too. at, real (t, 1): the target, and whether it counts.
    """
    own = torch.log_softmax(z, -1)  # (t, V)
    loss = -own.gather(1, at)
    if temperature != 1:
        z, theirs = z.div_(temperature), theirs.div_(temperature)
    log_q = own if temperature == 1 else torch.log_softmax(z, -1)
    log_p = torch.log_softmax(theirs, -1)
    p = torch.exp(log_p, out=theirs)
    kl = torch.sub(log_p, log_q, out=z).mul_(p).sum(-1, keepdim=True) * temperature**2
    torch.exp(log_q, out=z)
    if temperature == 1:
        z.sub_(p, alpha=weight)  # (1 - w) q + w (q - p)
    else:
        z.sub_(p).mul_(weight * temperature)
        z.add_(own.exp_(), alpha=1 - weight)
    z.scatter_add_(1, at, z.new_full((), weight - 1.0).expand_as(at))
    return torch.cat([loss, kl], 1).mul_(real).sum(0)
