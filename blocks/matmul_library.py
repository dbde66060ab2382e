"""The library for matrix products of linear maps in float32 on a CPU: torch's own choice, or oneDNN.

    y = x W^T + b,   dL/dx = g W,   dL/dW = g^T x

A torch that was built with MKL gives it float32 products. On some processors (AMD's) MKL runs at half the speed of
oneDNN, which torch also has but uses for bfloat16 alone. Both libraries sum in float32; results differ by rounding. A
decoder uses torch's own product until `choose` is called. The engine measures which one is faster, and remembers it
(miniwin/machine/matmul_choice.py).

Small products, other dtypes and devices, autocast, torch.compile and torch.func always use torch's own product.
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
MKL: Product = "mkl"  # torch's own product, whatever library it was built with
ONEDNN: Product = "onednn"
FEWEST = 8  # the fewest rows for oneDNN: with fewer, as in decoding, reading the weights takes the time
LEAST = 1 << 20  # the fewest multiplications for oneDNN: a call of it takes 10 microseconds more


class Linear(nn.Linear):
    """nn.Linear by oneDNN, with the same parameters, names and initial values."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias, ONEDNN)


def offered() -> tuple[Product, ...]:
    """The products that this torch offers on this machine."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return (MKL, ONEDNN) if there else (MKL,)


def choose(decoder: nn.Module, product: Product) -> None:
    """Make all linear maps of a decoder, its head and its loss use this product. Other subclasses of nn.Linear stay."""
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
        weight = weight.wide()  # Int8Weight widens itself for torch's product too
    given = (x, weight) if bias is None else (x, weight, bias)
    if not _fit(x, weight, given):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return]
    return _by_onednn(x, weight, bias)


def matmul(a: Tensor, b: Tensor, product: Product, room: Tensor) -> Tensor:
    """a (R, I) @ b (I, O) -> (R, O); records no gradient. room (R, O): memory that the result may use, or may not."""
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
    """`linear` by oneDNN. The backward calls `linear` again, so second derivatives exist."""

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
    """g^T x of g (R, O) and x (R, I) -> (O, I). oneDNN copies its first operand if that lies by columns.

    So the narrower of the two comes first.
    """
    if x.shape[1] < g.shape[1]:
        return linear(x.t(), g.t(), None, ONEDNN).t()
    return linear(g.t(), x.t(), None, ONEDNN)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat = _dense(x.reshape(-1, x.shape[-1]))
    out: Tensor = torch.ops.mkldnn._linear_pointwise(flat, _dense(weight), bias, "none", [], "")
    return out.view(*x.shape[:-1], weight.shape[0])


def _dense(matrix: Tensor) -> Tensor:
    """The matrix, contiguous by rows or by columns: oneDNN takes both. With other strides it is 2000 times slower."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
