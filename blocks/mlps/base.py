"""The base of every MLP: a spec that knows its cost, and two kinds of module.

    gated   y = W_down( g(W_gate x, W_up x) )     three matrices (GLU variants, Shazeer, arXiv 2002.05202)
    plain   y = W_down( f(W_up x) )               two matrices

up (and gate) widen to intermediate_size, down comes back; biases are optional. A new MLP is a subclass that defines g
or f. Shapes: C hidden_size, I intermediate_size.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from miniwin.blocks.spec import PositiveInt, Strict
from miniwin.blocks.tiling import in_pieces


class GatedMLP(nn.Module):
    """Base of gated MLPs: (..., C) -> (..., C)."""

    residual_writer = "down_proj"  # the projection whose output is added to the residual stream (see init.py)

    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        return in_pieces(self._forward, x, self.gate_proj.out_features)

    def _forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.gated(self.gate_proj(x), self.up_proj(x)))  # (..., I) -> (..., C)
        return out

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """g: combine gate and up, both (..., I), to (..., I)."""
        raise NotImplementedError


class PlainMLP(nn.Module):
    """Base of plain MLPs: (..., C) -> (..., C)."""

    residual_writer = "down_proj"

    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False) -> None:
        super().__init__()
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        return in_pieces(self._forward, x, self.up_proj.out_features)

    def _forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.activated(self.up_proj(x)))  # (..., I) -> (..., C)
        return out

    def activated(self, up: Tensor) -> Tensor:
        """f: the nonlinearity, (..., I) -> (..., I)."""
        raise NotImplementedError


class MLPSpec(Strict):
    """Base of every MLP's spec: what it builds, and what it costs."""

    type: str

    def build(self, hidden_size: int) -> nn.Module:
        raise NotImplementedError

    def parameters(self, hidden_size: int) -> int:
        raise NotImplementedError

    def active_parameters(self, hidden_size: int) -> int:
        """The parameters that one token uses: all, except in a mixture of experts."""
        return self.parameters(hidden_size)

    def flops(self, hidden_size: int) -> float:
        """Forward floating-point operations per token, in matrix products: two for each weight of a matrix used."""
        raise NotImplementedError


class DenseSpec(MLPSpec):
    """An MLP that every token goes through. bias: on every projection."""

    matrices: ClassVar[int]  # how many of hidden_size * intermediate_size weights
    intermediate_size: PositiveInt
    bias: bool = False

    def parameters(self, hidden_size: int) -> int:
        biases = (self.matrices - 1) * self.intermediate_size + hidden_size if self.bias else 0
        return self.matrices * hidden_size * self.intermediate_size + biases

    def flops(self, hidden_size: int) -> float:
        return 2.0 * self.matrices * hidden_size * self.intermediate_size


class GatedSpec(DenseSpec):
    """Base of the specs of gated MLPs."""

    matrices = 3


class PlainSpec(DenseSpec):
    """Base of the specs of plain MLPs."""

    matrices = 2
