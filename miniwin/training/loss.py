"""The loss of the next token, straight from hidden states: head and cross-entropy without all the logits at once.

    z = cap * tanh(scale * h W^T / cap);   loss = mean over the targets y of  log sum_v exp(z_v) - z_y
    dloss/dz = (softmax(z) - onehot(y)) / count

All the logits, (T, V) in float32 with their softmax and its gradient, cost more time and memory than a small model's
layers. So the head sees one chunk of tokens at a time. While the logits of a chunk are at hand, its share of the
gradients of h and W is computed too: no logits are kept, and none are computed twice. (So does Liger Kernel, arXiv
2410.10989, section 3.2; Wijmans et al., arXiv 2411.09009, take two passes.) The gradients are held until the backward,
which only multiplies them.

Products are in the dtype of autocast, or of the inputs without it. Softmax and sums are in float32, or in float64 for
float64. On a CPU with AMX, bfloat16 takes one kernel in C (blocks/native/head_loss.c). With AVX-512's bfloat16 alone a
kernel would gain nothing: 85 % of the time goes into the three products, which are oneDNN's.

Shapes: T tokens, t tokens of a chunk, C hidden_size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from miniwin.blocks import Decoder
from miniwin.blocks.matmul_library import MKL, Product, matmul
from miniwin.blocks.native import head_loss, rows
from miniwin.data.rows import IGNORED

LOGITS = 1 << 22  # logits of one chunk at most, unless the chunk would have fewer than FEWEST tokens
LOGITS_ON_A_GPU = 1 << 26  # more, since few tokens leave most of a GPU idle: 256 MiB of float32
LOOKED_AT = ("cpu",)  # devices whose numbers can be read at once; reading a GPU's numbers waits for its work
SMALL = 1e-30  # float32 loses digits below 1e-38; a probability below this is computed again by its logarithm
FEWEST = 256  # the tokens of a chunk are a multiple of this: with fewer, or an odd number, the products are slow


def next_token_loss(decoder: Decoder, hidden: Tensor, targets: Tensor) -> Tensor:
    """cross_entropy(decoder.logits(hidden), targets): hidden (B, N, C), targets (B, N) -> mean nats per token."""
    shape = decoder.logit_scale, decoder.logit_softcap
    return linear_cross_entropy(hidden, decoder.head.weight, targets, *shape, product=decoder.product)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    logit_scale: float | None = None,
    logit_softcap: float | None = None,
    chunk: int | None = None,
    product: Product = MKL,
) -> Tensor:
    """Mean loss: hidden (..., C), weight (V, C) and integer targets (...) -> scalar in nats, float32 or float64.

    Targets of -100 do not count. If no target counts, the loss is NaN, as in torch.

    logit_scale, logit_softcap: see the equation at the top. chunk: tokens of a chunk; by default as many as are fast.
    product: which library multiplies float32 on a CPU.

    Raises:
        ValueError: the shapes do not fit together, or the targets are not integers.
        IndexError: a target is outside the vocabulary (on a CPU; elsewhere the device's own error).
    """
    if hidden.shape[-1] != weight.shape[1] or hidden.shape[:-1] != targets.shape:
        shapes = ", ".join(f"{tuple(t.shape)}" for t in (hidden, weight, targets))
        raise ValueError(f"linear_cross_entropy: got shapes {shapes}; expected (..., C), (V, C) and (...)")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"linear_cross_entropy: got targets of {targets.dtype}; expected whole numbers, as int64")
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else torch.promote_types(hidden.dtype, weight.dtype)
    flat = hidden.reshape(-1, hidden.shape[-1])  # (T, C)
    wanted = torch.is_grad_enabled()
    out: Tensor = _Loss.apply(
        flat, weight, targets.reshape(-1).contiguous().long(), logit_scale, logit_softcap, chunk, dtype, product, wanted
    )
    return out


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float | None,
        cap: float | None,
        chunk: int | None,
        dtype: torch.dtype,
        product: Product,
        wanted: bool,
    ) -> Tensor:
        to_hidden, to_weight = (wanted and need for need in ctx.needs_input_grad[:2])
        with torch.autocast(hidden.device.type, enabled=False):
            h, w, factor = hidden.to(dtype), weight.to(dtype), 1.0 if scale is None else scale
            count = count_targets(targets, len(w))
            if cap is None and head_loss.fit(h, w, targets):
                asked = factor, head_loss.CHUNK if chunk is None else chunk, (to_hidden, to_weight)
                losses, *grads = head_loss.head_loss(h.contiguous(), w.contiguous(), targets, IGNORED, *asked)
                total = losses.sum()
            else:
                if chunk is None:
                    chunk = default_chunk(len(w), h.device.type)
                grads_wanted = (to_hidden, to_weight)
                total, *grads = _in_chunks(h, w, targets, scale, cap, chunk, grads_wanted, product)
        ctx.save_for_backward(*grads)  # freed with the graph: (T, C) and (V, C)
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.factor = factor / count.clamp(min=1).to(total.dtype)  # without targets the loss is NaN, its gradient 0
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        factor, (to_hidden, to_weight) = ctx.factor * grads[0], ctx.saved_tensors
        if to_hidden is not None:
            to_hidden = (to_hidden * factor).to(ctx.dtypes[0])
        if to_weight is not None:
            room = to_weight.new_empty(to_weight.shape)
            to_weight = torch.mul(to_weight, factor, out=room).to(ctx.dtypes[1])
        return to_hidden, to_weight, *[None] * 7


def default_chunk(vocabulary: int, device: str) -> int:
    """How many tokens go through the head at a time."""
    return max(1, (LOGITS if device == "cpu" else LOGITS_ON_A_GPU) // vocabulary // FEWEST) * FEWEST


def count_targets(targets: Tensor, vocabulary: int) -> Tensor:
    """How many targets count. On a CPU, a target outside the vocabulary is an IndexError: kernels index by it."""
    real = targets != IGNORED
    if targets.device.type == "cpu":
        wrong = targets[real & ((targets < 0) | (targets >= vocabulary))]
        if len(wrong):
            raise IndexError(f"target {int(wrong[0])} is out of bounds: the vocabulary has {vocabulary} tokens")
    return real.sum()


def _in_chunks(
    h: Tensor,
    w: Tensor,
    targets: Tensor,
    scale: float | None,
    cap: float | None,
    chunk: int,
    wanted: tuple[bool, bool],
    product: Product,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(sum of the losses, gradient of h (T, C), gradient of w (V, C)); None for a gradient that is not wanted.

    The gradients are those of the sum, divided by `scale`. That of h is in the dtype of h, that of w in a wider one.
    """
    wide = torch.float64 if h.dtype == torch.float64 else torch.float32
    total = torch.zeros((), dtype=wide, device=h.device)
    grad_h = torch.empty_like(h) if wanted[0] else None
    # Transposed to (C, V), since the product that fills it is faster this way round.
    empty = torch.empty if len(h) else torch.zeros  # the first chunk overwrites; without tokens there is none
    grad_w = empty(w.shape[::-1], dtype=wide, device=h.device) if wanted[1] else None
    room = Room(h, w, chunk, wide, product)
    quick = cap is None and rows.fit(len(w), room.narrow)
    for start in range(0, len(h), chunk):
        part = slice(start, start + chunk)
        own = h[part]  # (t, C)
        if quick:
            pull = matmul(own, w.t(), product, room.narrow[: len(own)])  # (t, V): logits, then their gradient
            total += rows.softmax_loss(pull, targets[part], IGNORED, 1.0 if scale is None else scale).sum()
            if grad_h is not None:
                put(matmul(pull, w, product, grad_h[part]), grad_h[part])
            if grad_w is not None:
                room.add_product(grad_w, own, pull, first=start == 0)
            continue
        logits, bent = room.logits(own, scale, cap)  # (t, V)
        real = targets[part] != IGNORED  # (t,)
        at = targets[part].where(real, 0).unsqueeze(1)  # (t, 1)
        if h.device.type in LOOKED_AT:
            chances = torch.softmax(logits, -1, out=logits)
            chance = chances.gather(1, at).squeeze(1)
            log_p, lost = chance.log(), chance < SMALL  # (t,); such a small probability has lost digits
            if bool(lost.any()):
                again = torch.log_softmax(Room(own[lost], w, chunk, wide, product).logits(own[lost], scale, cap)[0], -1)
                log_p[lost] = again.gather(1, at[lost]).squeeze(1)
        else:
            chances = torch.log_softmax(logits, -1)
            log_p = chances.gather(1, at).squeeze(1)
            chances.exp_()
        total -= (log_p * real).sum()
        if grad_h is None and grad_w is None:
            continue
        # Divided by the count only at the end: so bfloat16 keeps more bits of the probabilities.
        chances.scatter_add_(1, at, chances.new_full((), -1.0).expand_as(at))
        if bent is not None:
            chances *= bent
        # Ignored tokens are zeroed in the (t, C) factors, which are smaller than (t, V).
        pull, counted = room.narrowed(chances), real.unsqueeze(1)  # (t, V), (t, 1)
        if grad_h is not None:
            put(matmul(pull, w, product, grad_h[part]), grad_h[part]).mul_(counted)
        if grad_w is not None:
            room.add_product(grad_w, own * counted, pull, first=start == 0)
    return total, grad_h, None if grad_w is None else grad_w.t()


def put(found: Tensor, place: Tensor) -> Tensor:
    """Copy what `matmul` found to its place, unless `matmul` has written it there."""
    return found if found.data_ptr() == place.data_ptr() else place.copy_(found)


class Room:
    """Buffers for the logits of a chunk. The next chunk uses them again: fresh memory costs more than its use."""

    def __init__(self, h: Tensor, w: Tensor, chunk: int, wide: torch.dtype, product: Product) -> None:
        self.w, self.how = w, product
        self.narrow = h.new_empty(min(chunk, len(h)), len(w))  # (t, V)
        self.product: Tensor | None = None  # (C, V): one chunk's gradient of the weight, in the dtype of the inputs
        self.wide = self.narrow if h.dtype == wide else self.narrow.new_empty(self.narrow.shape, dtype=wide)

    def logits(self, h: Tensor, scale: float | None, cap: float | None) -> tuple[Tensor, Tensor | None]:
        """The logits (t, V) of a chunk h (t, C), and the slope of the soft cap at them (t, V), if there is a cap."""
        logits = matmul(h, self.w.t(), self.how, self.narrow[: len(h)])
        if self.wide is not self.narrow:
            logits = self.wide[: len(h)].copy_(logits)
        if scale is not None:
            logits *= scale
        if cap is None:
            return logits, None
        bent = torch.tanh(logits / cap)
        return torch.mul(bent, cap, out=logits), 1 - bent * bent

    def narrowed(self, values: Tensor) -> Tensor:
        """values (t, V) in the dtype of the products. A copy overwrites the chunk's logits."""
        return values if values.dtype == self.narrow.dtype else self.narrow[: len(values)].copy_(values)

    def add_product(self, total: Tensor, h: Tensor, pull: Tensor, first: bool) -> None:
        """total (C, V) += h (t, C)^T pull (t, V), in the wider dtype of the total. first: overwrite the total."""
        if total.dtype == pull.dtype and self.how == MKL:
            torch.addmm(total, h.t(), pull, beta=0 if first else 1, out=total)
            return
        if self.product is None:
            self.product = pull.new_empty(total.shape)
        found = matmul(h.t(), pull, self.how, self.product)
        if rows.fit(total.shape[1], total, found):
            rows.add(total, found, first)
        elif first:
            total.copy_(found)
        else:
            total += found.to(total.dtype)
