"""SwiGLU: gated MLP (Shazeer, arXiv 2002.05202, eq. 6).

    y = W_down( silu(W_gate x) * (W_up x) )

Three matrices; gate and up widen to intermediate_size, down comes back. The paper has no biases; they are an option.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from miniwin.blocks.mlp import GatedMLP, GatedSpec
from miniwin.blocks.registry import MLPS


class SwiGLU(GatedMLP):
    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return nn.functional.silu(gate) * up


@MLPS.register
class SwiGLUSpec(GatedSpec):
    """`mlp: {type: swiglu, intermediate_size: 384}`"""

    LATER: ClassVar[frozenset[str]] = frozenset({"bias"})

    type: Literal["swiglu"] = "swiglu"

    def build(self, hidden_size: int) -> SwiGLU:
        return SwiGLU(hidden_size, self.intermediate_size, self.bias)
