"""Stick-breaking attention (Tan et al., arXiv 2410.17980): recency without positions, and without softmax.

    beta_ij = sigmoid(z_ij),   A_ij = beta_ij * prod_{j < k < i} (1 - beta_ik)   for j < i,   o_i = sum_{j < i} A_ij v_j

z_ij is the score that softmax would be given. From a stick of length 1, the nearest key breaks off its share first and
older ones share what is left: equal scores favour the recent, and the position of a key is how many were asked before.

Which keys: those strictly before the query; its own is left out, as in the paper. Keys hidden by a window, a chunk or
padding break nothing off. What remains of the stick goes to nobody: weights sum to at most 1, and the first token of a
row, which has no earlier key, gets zero. (Some implementations give the rest to a learned vector; not this one.)

The weighting is done by the attention backends. Cost: nothing learned, nothing more cached.
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
                "window", "got 1, which is the query itself; stick-breaking looks at earlier keys only: at least 2"
            )

    def build(self, heads: Heads) -> StickBreaking:
        return StickBreaking()
