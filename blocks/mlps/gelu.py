"""A plain MLP with the GELU (Hendrycks and Gimpel, arXiv 1606.08415), as in GPT-2 and GPT-NeoX.

    y = W_down gelu(W_up x)

gelu is x * Phi(x) with the normal distribution function Phi, or 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from miniwin.blocks.mlps.base import PlainMLP, PlainSpec
from miniwin.blocks.registry import MLPS


class GELU(PlainMLP):
    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False, approximate: str = "none") -> None:
        super().__init__(hidden_size, intermediate_size, bias)
        self.approximate = approximate

    def activated(self, up: Tensor) -> Tensor:
        return nn.functional.gelu(up, approximate=self.approximate)


@MLPS.register
class GELUSpec(PlainSpec):
    """`mlp: {type: gelu, intermediate_size: 512, bias: true}`"""

    type: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = "none"

    def build(self, hidden_size: int) -> GELU:
        return GELU(hidden_size, self.intermediate_size, self.bias, self.approximate)
