"""RMSNorm: root mean square layer normalisation (Zhang and Sennrich, arXiv 1910.07467, eq. 4).

    y = x / sqrt(mean(x^2) + eps) * gain

The mean is over the channels. The gain is the weight (`plain`), one plus the weight (`one-plus`, as in Gemma: a weight
of zero is no gain, so that decay pulls towards the identity), or absent (`none`, as in Llama 4's QK-norm).

Everything, the gain included, is computed in float32 whatever the dtype of x (in float64 for float64), and rounded
once. Hugging Face's Llama rounds to x's dtype before the gain: in bfloat16 it differs from this by that rounding.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.registry import NORMS
from miniwin.blocks.spec import PositiveReal, Strict

Gain = Literal["plain", "one-plus", "none"]


class RMSNorm(nn.Module):
    """Over the last dimension: (..., size) -> (..., size)."""

    weight: nn.Parameter | None

    def __init__(self, size: int, eps: float, gain: Gain = "plain") -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.offset = 1.0 if gain == "one-plus" else 0.0
        start = torch.zeros(size) if gain == "one-plus" else torch.ones(size)
        self.register_parameter("weight", None if gain == "none" else nn.Parameter(start))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        gain = None if self.weight is None else self.weight.to(wide)
        if gain is not None and self.offset:
            gain = gain + self.offset
        return nn.functional.rms_norm(x.to(wide), (self.size,), gain, self.eps).to(x.dtype)


@NORMS.register
class RMSNormSpec(Strict):
    """`norm: {type: rmsnorm, eps: 1e-6}`"""

    LATER: ClassVar[frozenset[str]] = frozenset({"gain"})

    type: Literal["rmsnorm"] = "rmsnorm"
    eps: PositiveReal = 1e-6
    gain: Gain = "plain"

    def build(self, size: int) -> RMSNorm:
        return RMSNorm(size, self.eps, self.gain)

    def parameters(self, size: int) -> int:
        return 0 if self.gain == "none" else size
