"""Stick-breaking attention (Tan et al., arXiv 2410.17980): recency without positions, and without softmax.

    beta_ij = sigmoid(z_ij),   A_ij = beta_ij * prod_{j < k < i} (1 - beta_ik)   for j < i,   o_i = sum_{j < i} A_ij v_j

z_ij is the score that softmax would be given. From a stick of length 1 the nearest key breaks off its share first; each
older key breaks off a share of the rest. So among equal scores the recent key gets more.

A query looks at the keys strictly before it, not at its own, as in the paper. Keys hidden by a window, a chunk or
padding break nothing off. The rest of the stick goes to nobody: weights sum to at most 1. The first token of a row has
no earlier key, and its output is zero. (Some implementations give the rest to a learned vector; this one does not.)

The attention backends compute the weights. Cost: no parameters and no larger cache.
"""

from __future__ import annotations

from typing import Literal

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec, located
from miniwin.blocks.registry import POSITIONS


class StickBreaking(PositionEncoding):
    weighting = "stick-breaking"


@POSITIONS.register
class StickBreakingSpec(PositionSpec):
    """`position: {type: stick-breaking}`"""

    type: Literal["stick-breaking"] = "stick-breaking"

    @property
    def weighting(self) -> str:
        return "stick-breaking"

    @property
    def by_distance(self) -> bool:
        return True

    def check(self, heads: Heads) -> None:
        if heads.window == 1:
            raise located(
                "window", "got 1, which is the query itself; stick-breaking looks at earlier keys only: use at least 2"
            )

    def build(self, heads: Heads) -> StickBreaking:
        return StickBreaking()
