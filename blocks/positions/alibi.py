"""ALiBi: attention with linear biases (Press et al., arXiv 2108.12409, section 3).

    score_ij += -m_h * (i - j)

Slopes m_h = 2^(-8h/H) for h = 1 .. H when H is a power of two; otherwise those of the largest power of two below H,
followed by every second slope of the list for twice that number (the authors' rule).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from miniwin.blocks.positions.base import PositionEncoding, ScoreBias
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import Strict


def slopes(num_heads: int) -> Tensor:
    """(H,) float32."""
    power = 1 << (num_heads.bit_length() - 1)
    first = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    twice = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * power + 1)]
    return torch.tensor(first + twice[::2][: num_heads - power], dtype=torch.float32, device="cpu")


class Alibi(PositionEncoding):
    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self._slopes = slopes(num_heads)

    def score_bias(self) -> ScoreBias:
        def bias(distance: Tensor) -> Tensor:  # (n, m) -> (H, n, m)
            return -self._slopes.to(distance.device).view(-1, 1, 1) * distance

        return bias


@POSITIONS.register
class AlibiSpec(Strict):
    """`position: {type: alibi}`"""

    type: Literal["alibi"] = "alibi"

    def check(self, head_dim: int, window: int | None) -> None:
        """Any head_dim and any window will do."""

    def build(self, head_dim: int, num_heads: int, window: int | None) -> Alibi:
        return Alibi(num_heads)

    def parameters(self, num_heads: int) -> int:
        return 0
