"""RMSNorm: root mean square layer normalisation (Zhang and Sennrich, arXiv 1910.07467, eq. 4).

    y = x / sqrt(mean(x^2) + eps) * gain

The mean is over the channels; computed in float32 whatever the dtype of x.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.registry import NORMS
from miniwin.blocks.spec import PositiveReal, Strict


class RMSNorm(nn.Module):
    """Over the last dimension: (..., size) -> (..., size)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


@NORMS.register
class RMSNormSpec(Strict):
    """`norm: {type: rmsnorm, eps: 1e-6}`"""

    type: Literal["rmsnorm"] = "rmsnorm"
    eps: PositiveReal = 1e-6

    def build(self, size: int) -> RMSNorm:
        return RMSNorm(size, self.eps)

    def parameters(self, size: int) -> int:
        return size
