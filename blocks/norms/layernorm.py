"""LayerNorm (Ba, Kiros and Hinton, arXiv 1607.06450): with a bias as in GPT-NeoX, without as in Cohere.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

Mean and variance (the biased one) are over the channels. Both are computed in float32 whatever the dtype of x, in
float64 for float64.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.registry import NORMS
from miniwin.blocks.spec import PositiveReal, Strict


class LayerNorm(nn.Module):
    """Over the last dimension: (..., size) -> (..., size)."""

    bias: nn.Parameter | None

    def __init__(self, size: int, eps: float, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.register_parameter("bias", nn.Parameter(torch.zeros(size)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        return nn.functional.layer_norm(x.to(wide), self.weight.shape, self.weight.to(wide), bias, self.eps).to(x.dtype)


@NORMS.register
class LayerNormSpec(Strict):
    """`norm: {type: layernorm, eps: 1e-5, bias: false}`"""

    type: Literal["layernorm"] = "layernorm"
    eps: PositiveReal = 1e-5
    bias: bool = False

    def build(self, size: int) -> LayerNorm:
        return LayerNorm(size, self.eps, self.bias)

    def parameters(self, size: int) -> int:
        return 2 * size if self.bias else size
