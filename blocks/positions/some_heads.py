"""An encoding as some of its heads see it: biases and scales of these heads alone.

Queries and keys of all heads are encoded together, before heads part. Gates are part of a token's entry, and part with
it. What is left acts on scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks.positions.base import PositionEncoding, Positions, ScoreBias, ScoreFunction


class SomeHeads(PositionEncoding):
    """whole: the encoding of all heads. runs: the query heads that are meant, as (first, end) of each run of them."""

    def __init__(self, whole: PositionEncoding, runs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.whole, self.runs = whole, runs
        self.weighting = whole.weighting

    @property
    def scales_queries(self) -> bool:
        return self.whole.scales_queries

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("all heads are encoded together")

    def score_bias(self) -> ScoreBias | None:
        bias = self.whole.score_bias()
        return None if bias is None else lambda distance: taken(bias(distance), 0, self.runs)

    def query_scale(self, visible: Tensor, total: int) -> Tensor | None:
        scale = self.whole.query_scale(visible, total)
        return scale if scale is None or scale.shape[-2] == 1 else taken(scale, -2, self.runs)

    def score(self) -> ScoreFunction | None:
        return self.whole.score()  # of queries and keys as they come: the same for every head


def taken(x: Tensor, dim: int, runs: Sequence[tuple[int, int]]) -> Tensor:
    """These runs of a dimension, one after another. A view, if there is one run."""
    parts = [x.narrow(dim, first, end - first) for first, end in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
