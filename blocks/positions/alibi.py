"""ALiBi: attention with linear biases (Press et al., arXiv 2108.12409, section 3).

    score_ij += -m_h * (i - j)

Slopes m_h = 2^(-8h/H) for h = 1 .. H when H is a power of two; otherwise those of the largest power of two below H,
followed by every second slope of the list for twice that number (the authors' rule).

Distances are integers and slopes float32, whatever the model computes in: a bias rounded to bfloat16 would give
the keys at distances 256 and 257 the same penalty. Nothing is learned and nothing cached: 0 parameters, 0 gates.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec, ScoreBias
from miniwin.blocks.registry import POSITIONS


def slopes(num_heads: int) -> Tensor:
    """The slopes m_h, (H,) float32."""
    power = 1 << (num_heads.bit_length() - 1)
    first = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    twice = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * power + 1)]
    return torch.tensor(first + twice[::2][: num_heads - power], dtype=torch.float32, device="cpu")


class Alibi(PositionEncoding):
    counts_tokens = "alibi's penalty grows with the number of tokens between query and key"

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self._slopes = slopes(num_heads)

    def score_bias(self) -> ScoreBias:
        def bias(distance: Tensor) -> Tensor:  # (n, m) -> (H, n, m)
            return -self._slopes.to(distance.device).view(-1, 1, 1) * distance

        return bias


@POSITIONS.register
class AlibiSpec(PositionSpec):
    """`position: {type: alibi}`"""

    type: Literal["alibi"] = "alibi"

    @property
    def by_distance(self) -> bool:
        return True

    def build(self, heads: Heads) -> Alibi:
        return Alibi(heads.num_heads)
