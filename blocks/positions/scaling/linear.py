"""Position interpolation: every frequency divided by one factor (Chen et al., arXiv 2306.15595).

    theta_k' = theta_k / factor

Dividing the positions would do the same: `factor` times the trained context falls into the trained range.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from miniwin.blocks.positions.scaling.base import Factor, ScalingSpec
from miniwin.blocks.registry import SCALINGS


@SCALINGS.register
class LinearSpec(ScalingSpec):
    """`scaling: {type: linear, factor: 8}`"""

    type: Literal["linear"] = "linear"
    factor: Factor

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        return frequencies / self.factor, 1.0

    def words(self) -> list[str]:
        return [f"linear x{self.factor:g}"]
