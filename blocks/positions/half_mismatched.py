"""The published MiniWin's partial rotary: a defect, kept so that its checkpoints run. It is not a rotation.

    (a, b) -> (a cos A - b sin A, b cos B + a sin B),   A = t f_c,  B = t f_((c + d/2) mod D/2),  f_k = base^(-2k/D)

Channel c < d/2 and its partner c + d/2 turn by different angles. The authors' code (github.com/Cominder/miniwin,
model/model_miniwin.py at 6143fc1) writes the frequencies of the whole head twice in a row and takes the first d of
them. Norms are not kept, and a score is no function of distance. With d = D both angles are the same, and nothing is
wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.blocks.positions.rotation import geometric


def first_of_the_whole_head(rope_theta: float, head_dim: int, rotary_dim: int) -> Tensor:
    """(d,) float64: one frequency for each rotated channel, the partners' in the second half."""
    return geometric(rope_theta, head_dim).repeat(2)[:rotary_dim]


def turn_mismatched(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, N, H, D) by cos, sin (1 or B, N, d): one for each channel in place of one for each pair."""
    cos_a, cos_b = cos.unsqueeze(-2).chunk(2, dim=-1)  # (1 or B, N, 1, d/2) each
    sin_a, sin_b = sin.unsqueeze(-2).chunk(2, dim=-1)
    turned, rest = x.tensor_split([cos.shape[-1]], dim=-1)
    a, b = turned.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat(((a * cos_a - b * sin_a).to(x.dtype), (b * cos_b + a * sin_b).to(x.dtype), rest), dim=-1)
