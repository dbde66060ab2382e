"""NTK-aware scaling, static: a larger base (bloc97's proposal of 2023; written up in YaRN, arXiv 2309.00071, sec. 3.1).

    theta' = rope_theta * factor^(d / (d - 2))

The highest frequency stays, the lowest becomes exactly 1/factor of what it was, and those between move gradually.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from miniwin.blocks.positions.base import located
from miniwin.blocks.positions.rotation import geometric
from miniwin.blocks.positions.scaling.base import Factor, ScalingSpec
from miniwin.blocks.registry import SCALINGS


def enlarged(rope_theta: float, rotary_dim: int, factor: float) -> Tensor:
    """(d/2,) float64: the frequencies of the larger base."""
    return geometric(rope_theta * factor ** (rotary_dim / (rotary_dim - 2)), rotary_dim)


def check_pairs(rotary_dim: int) -> None:
    if rotary_dim < 4:
        raise located(
            "position.scaling.type",
            f"got NTK scaling with {rotary_dim} rotated channels, whose one frequency does not depend on the base; "
            "rotate at least 4, or use type: linear",
        )


@SCALINGS.register
class NtkSpec(ScalingSpec):
    """`scaling: {type: ntk, factor: 4}`"""

    type: Literal["ntk"] = "ntk"
    factor: Factor

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        check_pairs(rotary_dim)

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        return enlarged(rope_theta, rotary_dim, self.factor), 1.0

    def words(self) -> list[str]:
        return [f"ntk x{self.factor:g}"]
