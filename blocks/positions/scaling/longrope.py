"""LongRoPE: a searched factor for every frequency (Ding et al., arXiv 2402.13753), as in Phi-3 (arXiv 2404.14219).

    theta_k' = theta_k / long_factor_k    at a length beyond the original one; / short_factor_k up to it
    attention_factor = sqrt(1 + ln(s) / ln(original)),  s = max_position_embeddings / original, 1 where s <= 1

One difference: other implementations choose the list by the length of the sequence at hand, so every key changes when
the sequence passes the original length. Here `length` chooses it, which is fixed in the spec (see base.py).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from miniwin.blocks.positions.base import located
from miniwin.blocks.positions.scaling.base import ScalingSpec
from miniwin.blocks.registry import SCALINGS
from miniwin.blocks.spec import PositiveInt, PositiveReal


@SCALINGS.register
class LongRopeSpec(ScalingSpec):
    """`scaling: {type: longrope, short_factor: [...], long_factor: [...], original_max_position_embeddings: 4096,
    max_position_embeddings: 131072}`

    Each list has one number for each rotated pair. length: the context that the model is run at; null:
    max_position_embeddings.
    """

    type: Literal["longrope"] = "longrope"
    short_factor: list[PositiveReal]
    long_factor: list[PositiveReal]
    original_max_position_embeddings: PositiveInt
    max_position_embeddings: PositiveInt
    attention_factor: PositiveReal | None = None
    length: PositiveInt | None = None

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        for name, numbers in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
            if len(numbers) != rotary_dim // 2:
                raise located(
                    f"position.scaling.{name}",
                    f"got {len(numbers)} factors; {rotary_dim} rotated channels need {rotary_dim // 2}, one for each "
                    "pair",
                )
        if self.original_max_position_embeddings == 1 and self.attention_factor is None:
            raise located(
                "position.scaling.attention_factor",
                "it follows from the logarithm of original_max_position_embeddings, which is 0 here; give it",
            )

    @property
    def factors(self) -> list[float]:
        """The list for the length that the model is run at."""
        length = self.max_position_embeddings if self.length is None else self.length
        return self.long_factor if length > self.original_max_position_embeddings else self.short_factor

    def magnitude(self) -> float:
        """The factor on cos and sin."""
        if self.attention_factor is not None:
            return self.attention_factor
        times = self.max_position_embeddings / self.original_max_position_embeddings
        return math.sqrt(1 + math.log(times) / math.log(self.original_max_position_embeddings)) if times > 1 else 1.0

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        return frequencies / torch.tensor(self.factors, dtype=torch.float64, device="cpu"), self.magnitude()

    def wavelengths(self, wavelengths: list[float]) -> list[float]:
        return [w * f for w, f in zip(wavelengths, self.factors, strict=True)]

    def canonical(self) -> dict[str, Any]:
        return {"type": self.type, "factors": list(self.factors), "attention_factor": self.magnitude()}

    def words(self) -> list[str]:
        times = self.max_position_embeddings / self.original_max_position_embeddings
        return [f"longrope x{times:g}", "long" if self.factors is self.long_factor else "short"]
