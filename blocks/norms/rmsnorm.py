"""RMSNorm: root mean square layer normalisation (Zhang and Sennrich, arXiv 1910.07467, eq. 4).

    y = x / sqrt(mean(x^2) + eps) * gain

The mean is over the channels. The gain is the weight (`plain`), one plus the weight (`one-plus`, as in Gemma: weight
decay then pulls the gain towards 1), or absent (`none`, as in Llama 4's QK-norm).

Everything, the gain included, is computed in float32 whatever the dtype of x (in float64 for float64), and rounded
once: to the dtype of x, or under autocast to autocast's dtype, since a matrix product reads the result. Hugging Face's
Llama rounds to the dtype of x before the gain: in bfloat16 the results differ by this rounding.

Training on a CPU has a backward of its own, in C or a few rows at a time. With r = 1 / sqrt(mean(x^2) + eps), and dy
the gradient of y:

    dx = r (dy gain) - x r^3 mean(dy gain x);   dgain = sum over rows of r x dy
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from miniwin.blocks.native import rows
from miniwin.blocks.registry import NORMS
from miniwin.blocks.spec import PositiveReal, Strict
from miniwin.blocks.tiling import in_pieces, pieces

FEW = 1 << 14  # numbers of x: up to here torch's own operator is the fastest without gradients
Gain = Literal["plain", "one-plus", "none"]


class RMSNorm(nn.Module):
    """Over the last dimension: (..., size) -> (..., size)."""

    weight: nn.Parameter | None

    def __init__(self, size: int, eps: float, gain: Gain = "plain") -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.offset = 1.0 if gain == "one-plus" else 0.0
        start = torch.zeros(size) if gain == "one-plus" else torch.ones(size)
        self.register_parameter("weight", None if gain == "none" else nn.Parameter(start))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.size:
            raise ValueError(f"RMSNorm: got {x.shape[-1]} channels; expected {self.size}")
        wide, device = torch.promote_types(x.dtype, torch.float32), x.device.type
        gain = None if self.weight is None else self.weight.to(wide)
        if gain is not None and self.offset:
            gain = gain + self.offset
        narrowed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if narrowed else x.dtype
        recorded, few = torch.is_grad_enabled(), x.numel() <= FEW
        known = dtype in rows.CODES and (gain is None or gain.dtype == torch.float32)
        if known and rows.fit(self.size, x):
            gain = x.new_ones(self.size, dtype=wide) if gain is None else gain.contiguous()
            if recorded:
                return _Native.apply(x.contiguous(), gain, self.eps, dtype)  # type: ignore[no-any-return]
            return rows.rmsnorm(x.contiguous(), gain, self.eps, dtype, keep=False)[0]
        if device != "cpu" or torch.compiler.is_compiling() or (few and not recorded):
            return nn.functional.rms_norm(x.to(wide), (self.size,), gain, self.eps).to(dtype)
        if recorded:
            gain = x.new_ones(self.size, dtype=wide) if gain is None else gain
            return _Normed.apply(x, gain, self.eps, dtype)  # type: ignore[no-any-return]

        def normed(piece: Tensor) -> Tensor:
            piece = piece.to(wide)
            out = piece * _inverse(piece, self.eps)
            return (out if gain is None else out.mul_(gain)).to(dtype)

        return in_pieces(normed, x, self.size)


class _Native(torch.autograd.Function):
    """By the C kernels, in one pass each way. x is contiguous, gain float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        out, inverse = rows.rmsnorm(x, gain, eps, dtype, keep=True)
        ctx.save_for_backward(x, gain, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, inverse = ctx.saved_tensors
        return *rows.rmsnorm_backward(x, gain, inverse, grads[0].contiguous()), None, None


def _inverse(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) of rows (..., C) -> (..., 1)."""
    squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return squares.div_(x.shape[-1]).add_(eps).rsqrt_()


class _Normed(torch.autograd.Function):
    """By torch, a few rows at a time: x (..., C), gain (C,) -> (..., C) in `dtype`. Computes in the gain's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        size, wide = x.shape[-1], gain.dtype
        flat = x.reshape(-1, size)
        out, inverse = flat.new_empty(flat.shape, dtype=dtype), flat.new_empty(len(flat), 1, dtype=wide)
        for part in pieces(len(flat), size):
            piece = flat[part].to(wide)
            inverse[part] = _inverse(piece, eps)
            out[part] = (piece * inverse[part]).mul_(gain)
        ctx.save_for_backward(x, gain, inverse)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, inverse = ctx.saved_tensors
        size, wide = x.shape[-1], gain.dtype
        flat, grad = x.reshape(-1, size), grads[0].reshape(-1, size)
        to_x, to_gain = flat.new_empty(flat.shape), torch.zeros_like(gain)
        with torch.autocast(x.device.type, enabled=False):
            for part in pieces(len(flat), size):
                piece, g, r = flat[part].to(wide), grad[part].to(wide), inverse[part]
                product = piece * g
                slope = (product @ gain).unsqueeze(1) * r**3 / -size
                to_gain.addmv_(product.t(), r.squeeze(1))
                to_x[part] = torch.mul(g, gain, out=product).mul_(r).addcmul_(piece, slope)
        return to_x.view(x.shape), to_gain, None, None


@NORMS.register
class RMSNormSpec(Strict):
    """`norm: {type: rmsnorm, eps: 1e-6}`"""

    LATER: ClassVar[frozenset[str]] = frozenset({"gain"})

    type: Literal["rmsnorm"] = "rmsnorm"
    eps: PositiveReal = 1e-6
    gain: Gain = "plain"

    def build(self, size: int) -> RMSNorm:
        return RMSNorm(size, self.eps, self.gain)

    def parameters(self, size: int) -> int:
        return 0 if self.gain == "none" else size
