"""GeGLU: MLP gated by a GELU (Shazeer, arXiv 2002.05202, eq. 6), as in Gemma.

    y = W_down( gelu(W_gate x) * (W_up x) )

gelu is x * Phi(x) with the normal distribution function Phi, or its tanh approximation (arXiv 1606.08415), which is
what Gemma uses. The paper has no biases; they are an option.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from miniwin.blocks.mlps.base import GatedMLP, GatedSpec
from miniwin.blocks.registry import MLPS


class GeGLU(GatedMLP):
    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False, approximate: str = "none") -> None:
        super().__init__(hidden_size, intermediate_size, bias)
        self.approximate = approximate

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return nn.functional.gelu(gate, approximate=self.approximate) * up


@MLPS.register
class GeGLUSpec(GatedSpec):
    """`mlp: {type: geglu, intermediate_size: 384, approximate: tanh}`"""

    type: Literal["geglu"] = "geglu"
    approximate: Literal["none", "tanh"] = "none"

    def build(self, hidden_size: int) -> GeGLU:
        return GeGLU(hidden_size, self.intermediate_size, self.bias, self.approximate)
