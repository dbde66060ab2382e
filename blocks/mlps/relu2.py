"""A plain MLP with the squared ReLU (Primer, So et al., arXiv 2109.08668), as in nanochat.

y = W_down max(0, W_up x)^2
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from miniwin.blocks.mlps.base import PlainMLP, PlainSpec
from miniwin.blocks.registry import MLPS


class SquaredReLU(PlainMLP):
    def activated(self, up: Tensor) -> Tensor:
        return nn.functional.relu(up).square()


@MLPS.register
class SquaredReLUSpec(PlainSpec):
    """`mlp: {type: relu2, intermediate_size: 512}`"""

    type: Literal["relu2"] = "relu2"

    def build(self, hidden_size: int) -> SquaredReLU:
        return SquaredReLU(hidden_size, self.intermediate_size, self.bias)
