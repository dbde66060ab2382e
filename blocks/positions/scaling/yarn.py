"""YaRN: interpolate slow frequencies, keep fast ones, and sharpen attention (Peng et al., arXiv 2309.00071).

    pair(r) = d ln(original / (2 pi r)) / (2 ln rope_theta)          the pair that turns r times over `original` tokens
    low, high = pair(beta_fast), pair(beta_slow)                     rounded outwards where `truncate`
    ramp_k = clamp((k - low) / (high - low), 0, 1)
    theta_k' = theta_k (1 - ramp_k) + theta_k / factor * ramp_k
    attention_factor = 0.1 ln(factor) + 1                            multiplies cos and sin, hence scores by its square

`mscale` and `mscale_all_dim` (DeepSeek-V2, arXiv 2405.04434) make that factor the ratio of 0.1 mscale ln(factor) + 1
and 0.1 mscale_all_dim ln(factor) + 1.

`low` is clamped at 0. The authors' code, DeepSeek's and transformers clamp `high` at d - 1, a number of channels rather
than of pairs (`high_clamp: channels`); MiniMind clamps it at the last pair, d/2 - 1 (`pairs`). The difference matters
only if the slowest pair turns more than beta_slow times over the original context.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from miniwin.blocks.positions.base import located
from miniwin.blocks.positions.scaling.base import Factor, ScalingSpec
from miniwin.blocks.registry import SCALINGS
from miniwin.blocks.spec import PositiveInt, PositiveReal, facts


@SCALINGS.register
class YarnSpec(ScalingSpec):
    """`scaling: {type: yarn, factor: 16, original_max_position_embeddings: 2048}`"""

    type: Literal["yarn"] = "yarn"
    factor: Factor
    original_max_position_embeddings: PositiveInt
    beta_fast: PositiveReal = 32.0
    beta_slow: PositiveReal = 1.0
    truncate: bool = True
    attention_factor: PositiveReal | None = None
    mscale: PositiveReal | None = None
    mscale_all_dim: PositiveReal | None = None
    high_clamp: Literal["channels", "pairs"] = "channels"

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        if rope_theta <= 1:
            raise located("position.rope_theta", f"got {rope_theta:g}; yarn needs more than 1")
        if self.beta_fast < self.beta_slow:
            raise located(
                "position.scaling.beta_fast",
                f"got {self.beta_fast:g} with beta_slow {self.beta_slow:g}; beta_fast counts the turns of faster "
                "pairs, so it must not be less",
            )
        if (self.mscale is None) != (self.mscale_all_dim is None):
            missing = "mscale" if self.mscale is None else "mscale_all_dim"
            raise located(f"position.scaling.{missing}", "mscale and mscale_all_dim act together; give both or neither")
        if self.attention_factor is not None and self.mscale is not None:
            raise located(
                "position.scaling.attention_factor", "attention_factor stands in place of mscale; give one of the two"
            )
        low, high = self.bounds(rope_theta, rotary_dim)
        if low > high:
            raise located(
                "position.scaling.original_max_position_embeddings",
                f"got {self.original_max_position_embeddings}; with rope_theta {rope_theta:g} no pair of the "
                f"{rotary_dim} rotated channels turns between {self.beta_slow:g} and {self.beta_fast:g} times over it, "
                "so there is nothing to interpolate",
            )

    def bounds(self, rope_theta: float, rotary_dim: int) -> tuple[float, float]:
        """low and high: where the ramp begins and ends, counted in pairs."""

        def pair(turns: float) -> float:
            ratio = math.log(self.original_max_position_embeddings) - math.log(turns) - math.log(2 * math.pi)
            return rotary_dim * ratio / (2 * math.log(rope_theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        return max(low, 0), min(high, rotary_dim - 1 if self.high_clamp == "channels" else rotary_dim // 2 - 1)

    def magnitude(self) -> float:
        """The factor on cos and sin."""
        if self.attention_factor is not None:
            return self.attention_factor
        growth = 0.1 * math.log(self.factor)
        if self.mscale is not None and self.mscale_all_dim is not None:
            return (growth * self.mscale + 1) / (growth * self.mscale_all_dim + 1)
        return growth + 1

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        low, high = self.bounds(rope_theta, rotary_dim)
        if low == high:
            high += 0.001  # a step instead of a ramp, as in the authors' code
        pairs = torch.arange(len(frequencies), dtype=torch.float64, device="cpu")
        ramp = ((pairs - low) / (high - low)).clamp(0, 1)
        return frequencies * (1 - ramp) + frequencies / self.factor * ramp, self.magnitude()

    def canonical(self) -> dict[str, Any]:
        data = facts(self) | {"attention_factor": self.magnitude()}
        del data["mscale"], data["mscale_all_dim"]
        return data

    def words(self) -> list[str]:
        return [f"yarn x{self.factor:g}"]
