"""Learned positions that are added to the embeddings (Radford et al. 2019, GPT-2; Vaswani et al. 2017, section 3.5):

    h_t = embed(input_ids)_t + p_t,   t < n

p is a table (n, hidden_size). The position enters the residual stream, so every layer reads it. Layers may have any
encoding besides: those of GPT-2 have none (`nope` without a logit scale). A text of more than n tokens is refused. For
positions of the first tokens alone, at any length, see `learned`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from miniwin.blocks.positions.base import PositionEncoding, Positions
from miniwin.blocks.spec import UserError


class AbsolutePositions(PositionEncoding):
    undecayed = rows_of_positions = ("weight",)
    counts_tokens = "its learned positions (embed_positions) are those of the tokens of a row"

    def __init__(self, num_positions: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_positions, hidden_size))  # p
        nn.init.normal_(self.weight, std=0.02)

    @property
    def num_positions(self) -> int:
        return len(self.weight)

    def forward(self, positions: Positions, longest: int) -> Tensor:
        """The vectors (1 or B, N, hidden_size) of these positions. longest: tokens of a row so far, padding included.

        Raises:
            UserError: a row, or a document in it, has more tokens than there are positions.
        """
        if longest > self.num_positions and not positions.index.is_meta:
            # Padding and the documents before do not count. Reading the index may wait for a GPU, so only now.
            tokens = int(positions.index.max()) + 1
            if tokens > self.num_positions:
                raise UserError(
                    f"input_ids: got {tokens:,} tokens in a row; the model has {self.num_positions:,} learned "
                    "positions (embed_positions), and none beyond: shorten the text"
                )
        return nn.functional.embedding(positions.index.clamp(max=self.num_positions - 1), self.weight)
