"""Relative position buckets (T5: Raffel et al., arXiv 1910.10683, section 2.1), causal.

    score_ij += bias[bucket(i - j), h]

Half of the buckets stand for one distance each; the others grow logarithmically up to `max_distance`. All larger
distances share the last bucket. With E = num_buckets // 2 exact buckets and K = num_buckets:

    bucket(d) = d                                                              for d < E
    bucket(d) = min(E + floor(ln(d / E) / ln(max_distance / E) * (K - E)), K - 1)   otherwise

One difference: T5 does not scale its scores; here they are divided by sqrt(D), as everywhere else. `score_scale: 1` on
the attention is T5's choice. Cost: num_buckets * num_heads parameters.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec, ScoreBias, located
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveInt


def buckets(num_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance 0 .. max_distance, (max_distance + 1,) int64."""
    exact = num_buckets // 2
    distance = torch.arange(max_distance + 1, device="cpu")
    # In float32 on the CPU, as T5 is usually run: where a bucket begins must not depend on the device.
    octaves = (distance.clamp(min=exact).float() / exact).log() / math.log(max_distance / exact)
    grown = exact + (octaves * (num_buckets - exact)).long()
    return torch.where(distance < exact, distance, grown.clamp(max=num_buckets - 1))


class RelativeBuckets(PositionEncoding):
    undecayed = ("bias",)
    counts_tokens = "t5's buckets count the tokens between query and key"

    def __init__(self, num_heads: int, num_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(num_buckets, num_heads))
        nn.init.normal_(self.bias, std=0.02)
        self._buckets = buckets(num_buckets, max_distance)

    def score_bias(self) -> ScoreBias:
        far = len(self._buckets) - 1
        # A table by distance: `bias` then reads one number per head, without a tensor (n, m, H) in between.
        rows = self.bias[self._buckets.to(self.bias.device)].t()  # (H, max_distance + 1)
        wide = rows if rows.dtype == torch.float64 else rows.float()

        def bias(distance: Tensor) -> Tensor:  # (n, m) -> (H, n, m)
            return wide[:, distance.clamp(0, far)]

        return bias


@POSITIONS.register
class RelativeBucketsSpec(PositionSpec):
    """`position: {type: t5, num_buckets: 32, max_distance: 128}`"""

    type: Literal["t5"] = "t5"
    num_buckets: Annotated[PositiveInt, Field(ge=2)] = 32
    max_distance: Annotated[PositiveInt, Field(le=2**24)] = 128  # the length of a table

    @property
    def by_distance(self) -> bool:
        return True

    def check(self, heads: Heads) -> None:
        exact = self.num_buckets // 2
        if self.max_distance <= exact:
            raise located(
                "position.max_distance",
                f"got {self.max_distance} with {self.num_buckets} buckets, {exact} of them for one distance each; "
                f"expected at least {exact + 1}",
            )

    def build(self, heads: Heads) -> RelativeBuckets:
        return RelativeBuckets(heads.num_heads, self.num_buckets, self.max_distance)

    def parameters(self, heads: Heads) -> int:
        return self.num_buckets * heads.num_heads

    def words(self) -> list[str]:
        return [self.type, f"{self.num_buckets} buckets to {self.max_distance}"]
