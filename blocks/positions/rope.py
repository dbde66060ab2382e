"""RoPE: rotary position embedding (Su et al., arXiv 2104.09864, eq. 34).

    theta_k = rope_theta^(-2k/D),  k = 0 .. D/2-1;   token t rotates channel pair k by t * theta_k

The score of a query at i and a key at j depends on i - j alone. Channels c and c + D/2 make a pair (the "half" layout
of Llama and its kin). Angles are computed in float64 and rounded once, so that position 1e7 is still exact to float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from miniwin.blocks.positions.base import PositionEncoding, angles, located, rotate_half
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveReal, Strict

TABLE_LIMIT = 1 << 16  # positions kept as a table; beyond it angles are computed for the tokens at hand


def geometric(rope_theta: float, head_dim: int) -> Tensor:
    """The usual frequencies rope_theta^(-2k/D), (D/2,) float64, radians per token."""
    return rope_theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)


def check_even(head_dim: int) -> None:
    if head_dim % 2:
        raise located("head_dim", f"got {head_dim}; a rotary encoding turns channels in pairs, so it must be even")


class Rope(PositionEncoding):
    """Rotates by the absolute position. frequencies (D/2,) float64."""

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        # Not a buffer: nothing here is state, and the table grows with the longest context seen.
        self._frequencies = frequencies
        self._table: tuple[Tensor, Tensor] | None = None

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return rotate_half(x, *self._cos_sin(positions))

    def _cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each (..., D/2) float32, at integer positions (...,)."""
        if positions.is_meta:
            empty = positions.new_empty((*positions.shape, len(self._frequencies)), dtype=torch.float32)
            return empty, empty
        top = int(positions.max()) + 1
        if top > TABLE_LIMIT:
            turn = angles(positions, self._frequencies)
            return turn.cos().float(), turn.sin().float()
        if self._table is None or len(self._table[0]) < top or self._table[0].device != positions.device:
            size = min(TABLE_LIMIT, 1 << max(8, (top - 1).bit_length()))
            turn = angles(torch.arange(size, device=positions.device), self._frequencies)
            self._table = (turn.cos().float(), turn.sin().float())
        cos, sin = self._table
        return cos[positions], sin[positions]


@POSITIONS.register
class RopeSpec(Strict):
    """`position: {type: rope, rope_theta: 10000}`"""

    type: Literal["rope"] = "rope"
    rope_theta: PositiveReal = 10000.0

    def check(self, head_dim: int, window: int | None) -> None:
        check_even(head_dim)

    def build(self, head_dim: int, num_heads: int, window: int | None) -> Rope:
        return Rope(geometric(self.rope_theta, head_dim))

    def parameters(self, num_heads: int) -> int:
        return 0
