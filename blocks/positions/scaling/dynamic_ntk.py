"""Dynamic NTK scaling: the base grows with the length run at (emozilla's proposal of 2023; arXiv 2309.00071, sec. 3.3).

    theta' = rope_theta * (factor * s - (factor - 1))^(d / (d - 2)),   s = max(length / original, 1)

One difference: other implementations take the length of the sequence at hand, and here the spec fixes it (see base.py).
Both agree on a sequence of exactly `length` tokens, read in one call.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from miniwin.blocks.positions.scaling.base import Factor, ScalingSpec
from miniwin.blocks.positions.scaling.ntk import check_pairs, enlarged
from miniwin.blocks.registry import SCALINGS
from miniwin.blocks.spec import PositiveInt


@SCALINGS.register
class DynamicNtkSpec(ScalingSpec):
    """`scaling: {type: dynamic-ntk, factor: 2, original_max_position_embeddings: 2048, length: 8192}`

    length: the context that the model is run at.
    """

    type: Literal["dynamic-ntk"] = "dynamic-ntk"
    factor: Factor
    original_max_position_embeddings: PositiveInt
    length: PositiveInt

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        check_pairs(rotary_dim)

    @property
    def growth(self) -> float:
        """factor * s - (factor - 1), whose power multiplies the base; 1 up to the original length."""
        times = max(self.length / self.original_max_position_embeddings, 1.0)
        return self.factor * times - (self.factor - 1)

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        return enlarged(rope_theta, rotary_dim, self.growth), 1.0

    def canonical(self) -> dict[str, Any]:
        return {"type": self.type, "growth": self.growth}

    def words(self) -> list[str]:
        return [f"dynamic-ntk x{self.factor:g} at {self.length}"]
