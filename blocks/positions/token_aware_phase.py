"""TAPA: token-aware phase attention (Wang et al., arXiv 2509.12635, equation 12).

    score_ij = <q_A, k_A> / sqrt(D_A) * cos(2 pi (i - j)^alpha <q_P, k_P> / sqrt(D_P))

The first D_A = theta * D channels of query and key give an amplitude. The other D_P channels give a phase, times a
power of the distance. So the content of two tokens decides how their distance matters; no distance is penalised as
such. theta is `amplitude` here; the paper takes theta 0.5 and alpha 0.1.

`score` replaces <q, k>, and the attention then multiplies it by 1/sqrt(D). The amplitude is therefore multiplied by
sqrt(D / D_A), which gives the equation. Distances are integers; i = j has phase 0.

Cost: no parameters and no larger cache. Each pair of query and key takes two dot products, together as long as the one
they replace, and a cosine.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec, ScoreFunction, located
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveReal, Real


class TokenAwarePhase(PositionEncoding):
    """channels: D_A, the number of channels of the amplitude."""

    counts_tokens = "token-aware-phase turns by the number of tokens between query and key"

    def __init__(self, channels: int, alpha: float) -> None:
        super().__init__()
        self.channels = channels
        self.alpha = alpha

    def score(self) -> ScoreFunction:
        def score(q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
            dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
            split = [self.channels, q.shape[-1] - self.channels]
            queries = q.to(dtype).unflatten(2, (k.shape[2], -1)).split(split, dim=-1)  # (B, n, Hkv, G, D_A or D_P)
            keys = k.to(dtype).split(split, dim=-1)
            amplitude, phase = (
                torch.einsum("bnkgc,bmkc->bkgnm", part, key).flatten(1, 2)  # (B, H, n, m)
                for part, key in zip(queries, keys, strict=True)
            )
            turns = distance.clamp(min=0).to(dtype) ** self.alpha * split[1] ** -0.5
            return amplitude * (sum(split) / split[0]) ** 0.5 * torch.cos(2 * math.pi * turns * phase)

        return score


@POSITIONS.register
class TokenAwarePhaseSpec(PositionSpec):
    """`position: {type: token-aware-phase, alpha: 0.1, amplitude: 0.5}`. amplitude: its share of the channels."""

    type: Literal["token-aware-phase"] = "token-aware-phase"
    alpha: PositiveReal = 0.1
    amplitude: Annotated[Real, Field(gt=0, lt=1)] = 0.5

    @property
    def by_distance(self) -> bool:
        return True

    def channels(self, heads: Heads) -> int:
        return round(self.amplitude * heads.head_dim)

    def check(self, heads: Heads) -> None:
        if not 0 < self.channels(heads) < heads.head_dim:
            raise located(
                "position.amplitude",
                f"got {self.amplitude:g}, {self.channels(heads)} of head_dim {heads.head_dim} channels; amplitude and "
                "phase need at least one each",
            )

    def build(self, heads: Heads) -> TokenAwarePhase:
        return TokenAwarePhase(self.channels(heads), self.alpha)

    def canonical(self, heads: Heads) -> dict[str, object]:
        return {"type": self.type, "alpha": self.alpha, "channels": self.channels(heads)}
