"""The clamped SwiGLU of gpt-oss (model card, arXiv 2508.10925; the formula is in OpenAI's published code).

    g = min(W_gate x, limit),  u = clamp(W_up x, -limit, limit)
    y = W_down( g * sigmoid(alpha * g) * (u + 1) )

The clamps bound what one outlier can do. Alpha 1.702 makes g * sigmoid(alpha * g) close to the GELU (arXiv 1606.08415),
and u + 1 lets the gate alone through where u is 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from miniwin.blocks.mlps.base import GatedMLP, GatedSpec
from miniwin.blocks.registry import MLPS
from miniwin.blocks.spec import PositiveReal


class ClampedSwiGLU(GatedMLP):
    def __init__(
        self, hidden_size: int, intermediate_size: int, bias: bool = False, limit: float = 7.0, alpha: float = 1.702
    ) -> None:
        super().__init__(hidden_size, intermediate_size, bias)
        self.limit, self.alpha = limit, alpha

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return gate * torch.sigmoid(self.alpha * gate) * (up + 1)


@MLPS.register
class ClampedSwiGLUSpec(GatedSpec):
    """`mlp: {type: clamped-swiglu, intermediate_size: 384, bias: true}`"""

    type: Literal["clamped-swiglu"] = "clamped-swiglu"
    limit: PositiveReal = 7.0
    alpha: PositiveReal = 1.702

    def build(self, hidden_size: int) -> ClampedSwiGLU:
        return ClampedSwiGLU(hidden_size, self.intermediate_size, self.bias, self.limit, self.alpha)
