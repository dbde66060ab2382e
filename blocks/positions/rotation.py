"""The parts of every rotary encoding: frequencies, angles, and the rotation of channel pairs.

    (a, b) -> (a cos - b sin, b cos + a sin)

The first d channels of each head are rotated; the rest pass unchanged. `half` pairs channel c with c + d/2 (Llama and
its kin), `interleaved` pairs 2c with 2c + 1 (the original RoFormer, Cohere, Llama 4's weights).

Shapes: B batch, N tokens, H heads, D head_dim, K = d/2 pairs.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from miniwin.blocks.native import rows
from miniwin.blocks.positions.base import located
from miniwin.blocks.spec import Fraction

Pairing = Literal["half", "interleaved"]
PartialFactor = Annotated[Fraction, Field(gt=0)]


def geometric(rope_theta: float, rotary_dim: int) -> Tensor:
    """The usual frequencies rope_theta^(-2k/d), (d/2,) float64, radians per token."""
    return rope_theta ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64, device="cpu") / rotary_dim)


def angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """positions (...,) times frequencies (K,) in float64 -> (..., K): float32 would lose 1e-2 rad at 1e5 tokens."""
    return positions.to(torch.float64).unsqueeze(-1) * frequencies.to(positions.device)


def rotated_channels(head_dim: int, factor: float) -> int:
    """How many channels of a head turn: `partial_rotary_factor` of them, rounded down as everyone does."""
    return int(head_dim * factor)


def check_rotated(head_dim: int, factor: float) -> None:
    """Raise `located` unless head_dim and the number of rotated channels are even, and at least 2 channels rotate."""
    if head_dim % 2:
        raise located("head_dim", f"got {head_dim}; a rotary encoding turns channels in pairs, so it must be even")
    count = rotated_channels(head_dim, factor)
    if count % 2 or count < 2:
        near = _factor(head_dim, max(2, count - count % 2))
        raise located(
            "position.partial_rotary_factor",
            f"got {factor:g}, which is {count} of {head_dim} channels; a rotary encoding turns channels in pairs, so "
            f"factor * head_dim must be an even number of at least 2: {near!r} would do",
        )


def _factor(head_dim: int, count: int) -> float:
    """A short decimal factor that makes `count` channels turn. The quotient may fail to: int(100 * 0.58) is 57."""
    quotient = count / head_dim
    tried = [round(quotient, 4), *((math.floor(quotient * 10**digits) + 1) / 10**digits for digits in range(1, 10))]
    return next(factor for factor in tried if rotated_channels(head_dim, factor) == count)


def partial_facts(head_dim: int, factor: float) -> dict[str, Any]:
    """The share of the head that turns, for a spec's `canonical`; empty if the whole head turns."""
    count = rotated_channels(head_dim, factor)
    return {} if count == head_dim else {"partial_rotary_factor": count / head_dim}


def partial_words(factor: float, pairing: str) -> list[str]:
    return ([] if factor == 1 else [f"{100 * factor:g}% of channels"]) + ([] if pairing == "half" else [pairing])


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate the first 2K channels of x (B, N, H, D) by cos, sin (1 or B, N, K), or (1 or B, N, H, K) for each head.

    Computed in the dtype of cos, returned in the dtype of x.
    """
    if cos.dim() == 4:  # to the rotation a head with angles of its own is a token
        turned = rotate(x.flatten(1, 2).unsqueeze(2), cos.flatten(1, 2), sin.flatten(1, 2), interleaved)
        return turned.squeeze(2).unflatten(1, x.shape[1:3])
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # (1 or B, N, 1, K)
    if not torch.is_grad_enabled():
        return _turn(x, cos, sin, interleaved, 1.0)
    return _Rotate.apply(x, cos, sin, interleaved)  # type: ignore[no-any-return]


class _Rotate(torch.autograd.Function):
    """A rotation with a backward of its own. Autograd would keep four products and need three times the passes.

    The transpose of a rotation is the rotation by the opposite angle, so x need not be kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved = interleaved
        return _turn(x, cos, sin, interleaved, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, ctx.interleaved, -1.0), None, None, None


def pairs(x: Tensor, count: int, interleaved: bool) -> tuple[Tensor, Tensor]:
    """Views of the first and of the second channels of the first `count` pairs: (..., D) -> (..., count) each."""
    if interleaved:
        return x[..., 0 : 2 * count : 2], x[..., 1 : 2 * count : 2]
    return x[..., :count], x[..., count : 2 * count]


def _turn(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, sense: float) -> Tensor:
    count = 2 * cos.shape[-1]
    if not interleaved and _fits(x, cos):
        return rows.rotate(x, cos.contiguous(), sin.contiguous(), sense)
    turned = x[..., :count].to(cos.dtype)  # (B, N, H, 2K)
    form = _traceable if torch.compiler.is_compiling() else _as_complex if interleaved else _in_halves
    out = form(turned, cos, sin if sense == 1 else sin * sense, interleaved).to(x.dtype)
    return out if count == x.shape[-1] else torch.cat((out, x[..., count:]), -1)


def _fits(x: Tensor, cos: Tensor) -> bool:
    """Whether the C kernel can rotate x (B, N, H, D) by cos (1 or B, N, 1, K). The kernel records no gradient."""
    if cos.dtype != torch.float32 or (x.requires_grad and torch.is_grad_enabled()):
        return False
    alike = x.ndim == 4 and cos.shape[:3] in ((1, x.shape[1], 1), (x.shape[0], x.shape[1], 1))
    return alike and x.stride(-1) == 1 and x.shape[-1] % rows.STEP == 0 and rows.fit(cos.shape[-1], x)


def _as_complex(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Each pair of neighbours as one complex number, times cos + i sin: one pass over memory."""
    if x.stride(-1) != 1 or x.storage_offset() % 2 or any(step % 2 for step in x.stride()[:-1]):
        x = x.contiguous()
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.complex(cos, sin)).flatten(-2)


def _in_halves(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """One pass multiplies whole rows by the cosine; the sine's products are then added to each half."""
    out = x * torch.cat((cos, cos), -1)
    (a, b), (first, second) = pairs(x, cos.shape[-1], False), pairs(out, cos.shape[-1], False)
    first.addcmul_(b, sin, value=-1)
    second.addcmul_(a, sin)
    return out


def _traceable(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """The plain formula, for torch.compile to fuse. The compiler takes neither complex numbers nor writes to views."""
    a, b = pairs(x, cos.shape[-1], interleaved)
    turned = a * cos - b * sin, b * cos + a * sin
    return torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
