"""SwiGLU: gated MLP (Shazeer, arXiv 2002.05202, eq. 6).

    y = W_down( silu(W_gate x) * (W_up x) )

Three matrices, no biases; gate and up widen to intermediate_size, down comes back.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from miniwin.blocks.registry import MLPS
from miniwin.blocks.spec import PositiveInt, Strict


class SwiGLU(nn.Module):
    """(B, N, hidden_size) -> (B, N, hidden_size)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


@MLPS.register
class SwiGLUSpec(Strict):
    """`mlp: {type: swiglu, intermediate_size: 384}`"""

    type: Literal["swiglu"] = "swiglu"
    intermediate_size: PositiveInt

    def build(self, hidden_size: int) -> SwiGLU:
        return SwiGLU(hidden_size, self.intermediate_size)

    def parameters(self, hidden_size: int) -> int:
        return 3 * hidden_size * self.intermediate_size

    def flops(self, hidden_size: int) -> float:
        """Forward floating-point operations per token: two for each weight."""
        return 2.0 * self.parameters(hidden_size)
