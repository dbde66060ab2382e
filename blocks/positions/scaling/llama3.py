"""Llama 3.1's scaling: interpolate wavelengths that do not fit the original context (arXiv 2407.21783; the formula
is in Meta's published inference code).

    turns_k = original * theta_k / (2 pi)                                     over the original context
    smooth  = clamp((turns_k - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    theta_k' = theta_k * smooth + theta_k / factor * (1 - smooth)
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from miniwin.blocks.positions.base import located
from miniwin.blocks.positions.scaling.base import Factor, ScalingSpec
from miniwin.blocks.registry import SCALINGS
from miniwin.blocks.spec import PositiveInt, PositiveReal


@SCALINGS.register
class Llama3Spec(ScalingSpec):
    """`scaling: {type: llama3, factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings:
    8192}`"""

    type: Literal["llama3"] = "llama3"
    factor: Factor
    low_freq_factor: PositiveReal
    high_freq_factor: PositiveReal
    original_max_position_embeddings: PositiveInt

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        if self.high_freq_factor < self.low_freq_factor:
            raise located(
                "position.scaling.high_freq_factor",
                f"got {self.high_freq_factor:g} with low_freq_factor {self.low_freq_factor:g}; it must not be smaller",
            )

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        turns = frequencies * (self.original_max_position_embeddings / (2 * math.pi))
        low, high = self.low_freq_factor, self.high_freq_factor
        # Where they are equal (Llama 4 Scout) there is nothing between the scaled and the unscaled frequencies.
        smooth = (turns > low).double() if low == high else ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * smooth + frequencies / self.factor * (1 - smooth), 1.0

    def words(self) -> list[str]:
        return [f"llama3 x{self.factor:g}"]
