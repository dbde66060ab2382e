"""Learned absolute positions for the first n tokens, and any other encoding from there on.

    q_t <- q_t + a_t,   k_t <- k_t + b_t   for t < n;   then the encoding named by `then`, for every token

A model gains from knowing where a text begins, and a beginning looks the same at any length. A periodic encoding in a
window cannot tell the first tokens from later ones. The article on P-RoPE (Huo, arXiv 2605.27980) names such a hybrid
as future work and gives no formula; this formula is ours. a and b are tables (n, D) that the heads share. Their initial
values are small and random. From token n on only the inner encoding acts: if it is relative, it is relative there.

Cost: 2 n D parameters on top of the inner encoding's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from miniwin.blocks.positions.base import (
    Heads,
    PositionEncoding,
    Positions,
    PositionSpec,
    ScoreBias,
    ScoreFunction,
    located,
    moved,
)
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveInt


class Learned(PositionEncoding):
    undecayed = rows_of_positions = ("queries", "keys")
    counts_tokens = "its learned positions belong to the first tokens of a row"

    def __init__(self, num_positions: int, head_dim: int, then: PositionEncoding) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(num_positions, head_dim))  # a
        self.keys = nn.Parameter(torch.empty(num_positions, head_dim))  # b
        for table in (self.queries, self.keys):
            nn.init.normal_(table, std=0.02)
        self.then = then
        self.weighting = then.weighting

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        first = (positions.index < len(self.queries)).unsqueeze(-1)  # (1 or B, N, 1)
        row = positions.index.clamp(0, len(self.queries) - 1)
        a, b = (torch.where(first, table[row], 0).unsqueeze(-2) for table in (self.queries, self.keys))
        return self.then.encode(q + a.to(q.dtype), k + b.to(k.dtype), positions)

    def score_bias(self) -> ScoreBias | None:
        return self.then.score_bias()

    def query_scale(self, visible: Tensor, total: int) -> Tensor | None:
        return self.then.query_scale(visible, total)

    def log_gates(self, x: Tensor) -> Tensor | None:
        return self.then.log_gates(x)

    def score(self) -> ScoreFunction | None:
        return self.then.score()


@POSITIONS.register
class LearnedSpec(PositionSpec):
    """`position: {type: learned, num_positions: 64, then: {type: p-rope, period: 128}}`"""

    # `then` holds any encoding, this one too: pydantic can build the schema only once all are registered.
    model_config = ConfigDict(defer_build=True)

    type: Literal["learned"] = "learned"
    num_positions: Annotated[PositiveInt, Field(le=2**24)]  # the length of a table
    then: POSITIONS.field()  # type: ignore[valid-type]

    @property
    def _then(self) -> Any:
        return self.then

    @property
    def by_distance(self) -> bool:
        return bool(self._then.by_distance)

    @property
    def weighting(self) -> str:
        return str(self._then.weighting)

    def check(self, heads: Heads) -> None:
        if self._then.type == self.type:
            raise located(
                "position.then", "got learned within learned; name the encoding that follows the first tokens"
            )
        if len(self._then.groups(heads)) > 1:
            raise located(
                "position.then",
                f"got {self._then.type}; put learned into its groups, or name one encoding for all heads",
            )
        try:
            self._then.check(heads)
        except PydanticCustomError as error:
            raise moved(error, "position.then") from None

    def build(self, heads: Heads) -> Learned:
        return Learned(self.num_positions, heads.head_dim, self._then.build(heads))

    def parameters(self, heads: Heads) -> int:
        return 2 * self.num_positions * heads.head_dim + int(self._then.parameters(heads))

    def key_dim(self, heads: Heads) -> int:
        return int(self._then.key_dim(heads))

    def gates(self, heads: Heads) -> int:
        return int(self._then.gates(heads))

    def flops(self, heads: Heads) -> float:
        return float(self._then.flops(heads))

    def canonical(self, heads: Heads) -> dict[str, Any]:
        return {"type": self.type, "num_positions": self.num_positions, "then": self._then.canonical(heads)}

    def frequencies(self, heads: Heads) -> Tensor | None:
        frequencies: Tensor | None = self._then.frequencies(heads)
        return frequencies

    def all_periods(self) -> list[int]:
        return list(self._then.all_periods())

    def words(self) -> list[str]:
        return [f"{self.num_positions} learned", *self._then.words()]
