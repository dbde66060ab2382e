"""Which library makes the matrix products of linear maps in float32 on a CPU: torch's own choice, or oneDNN.

    y = x W^T + b,   dL/dx = g W,   dL/dW = g^T x

torch gives float32 products to MKL where it was built with it. On some processors (AMD's) that is at half the speed of
oneDNN, which comes with torch too, and which torch asks for bfloat16 alone. Both sum in float32; they differ by
rounding. Nothing is chosen here: a decoder keeps torch's own product until `choose` is called. Which one is faster, and
what is remembered of it, is the engine's business (miniwin/machine/products.py).

Small products, other dtypes and devices, autocast, torch.compile and torch.func go by torch's own in any case.
Shapes: R rows, I in, O out.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miniwin.blocks import native
from miniwin.blocks.int8.weight import FEW, Int8Weight

Product = Literal["mkl", "onednn"]
MKL: Product = "mkl"  # torch's own, whatever it was built with
ONEDNN: Product = "onednn"
FEWEST = 8  # rows: fewer are read from memory rather than computed, as in decoding
LEAST = 1 << 20  # multiplications: a call of oneDNN takes 10 microseconds more


class Linear(nn.Linear):
    """nn.Linear by oneDNN. Parameters, their names and how they are drawn are the same."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias, ONEDNN)


def offered() -> tuple[Product, ...]:
    """The products that this torch has, on this machine."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return (MKL, ONEDNN) if there else (MKL,)


def choose(decoder: nn.Module, product: Product) -> None:
    """Have all linear maps of a decoder, its head and its loss go by this product. Whatever else is a subclass of
    nn.Linear keeps its own way."""
    decoder.product = product  # type: ignore[assignment]
    kind = Linear if product == ONEDNN else nn.Linear
    for module in decoder.modules():
        if type(module) in (nn.Linear, Linear):
            module.__class__ = kind


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
    """F.linear(x, weight, bias): x (..., I), weight (O, I), bias (O)."""
    if product == MKL:
        return F.linear(x, weight, bias)
    if isinstance(weight, Int8Weight) and x.dtype == weight.dtype and x.shape[:-1].numel() > FEW:
        weight = weight.wide()  # as it would be for torch's own product
    given = (x, weight) if bias is None else (x, weight, bias)
    if not _fit(x, weight, given):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return]
    return _by_onednn(x, weight, bias)


def matmul(a: Tensor, b: Tensor, product: Product, room: Tensor) -> Tensor:
    """a (R, I) @ b (I, O), no gradient recorded. room (R, O): memory for the result, which may be elsewhere though."""
    if product == ONEDNN and _fit(a, b.t(), (a, b)):
        return _by_onednn(a, b.t(), None)
    return torch.mm(a, b, out=room)


def _fit(x: Tensor, weight: Tensor, given: tuple[Tensor, ...]) -> bool:
    outs, ins = weight.shape
    rows = x.shape[:-1].numel()
    if rows < FEWEST or rows * outs * ins < LEAST or min(outs, ins) < FEWEST or x.shape[-1] != ins:
        return False
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in given) or torch.is_autocast_enabled("cpu"):
        return False
    return native.ordinary(*given) and bool(torch.backends.mkldnn.enabled)


class _Linear(torch.autograd.Function):
    """The backward is made of `linear` again, so that it can be gone through once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, weight), needed = grads, ctx.saved_tensors, ctx.needs_input_grad
        rows, ins = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])  # (R, O), (R, I)
        return (
            linear(g, weight.t(), None, ONEDNN) if needed[0] else None,
            _turned(rows, ins) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
        )


def _turned(g: Tensor, x: Tensor) -> Tensor:
    """g^T x, of g (R, O) and x (R, I). oneDNN copies the first of its operands where it is by columns: the narrower."""
    if x.shape[1] < g.shape[1]:
        return linear(x.t(), g.t(), None, ONEDNN).t()
    return linear(g.t(), x.t(), None, ONEDNN)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat = _dense(x.reshape(-1, x.shape[-1]))
    out: Tensor = torch.ops.mkldnn._linear_pointwise(flat, _dense(weight), bias, "none", [], "")
    return out.view(*x.shape[:-1], weight.shape[0])


def _dense(matrix: Tensor) -> Tensor:
    """Without gaps, by rows or by columns: oneDNN takes both as they are. For others it has loops that are two thousand
    times slower."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
