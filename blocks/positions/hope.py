"""HoPE: hyperbolic rotary encoding (Dai et al., arXiv 2509.05218, equations 5 to 12 and 14). Boosts replace rotations:

    q_i <- e^(-i t) B(i w) q_i,   k_j <- e^(j t) B(-j w) k_j,   B(x) = [[cosh x, sinh x], [sinh x, cosh x]]

on each pair of channels (2c, 2c + 1), with w_c as in RoPE and a damping t > max w. Their product depends on d = i - j:

    score_ij = sum_c e^(-d t) q^T B(d w_c) k

Computed as written, e^(j t) overflows after a few hundred tokens. But B is diagonal in light-cone coordinates,

    a = (x_2c + x_2c+1) / sqrt 2,   b = (x_2c - x_2c+1) / sqrt 2:
    score_ij = sum_c a_q a_k e^(-d (t - w_c)) + b_q b_k e^(-d (t + w_c))

a sum of decays, each in (0, 1] at any distance d >= 0. So `encode` turns queries and keys into a and b, without any
position, and `score` computes the decays from integer distances: exact at position 1e7. A key that agrees with the
query in every coordinate loses score steadily with distance. Scores decay towards 0, not towards minus infinity.

The paper calls t "learnable or predefined" and mentions a scaling factor, but gives no values. Here both are set:
w_c = scale * rope_theta^(-2c/D) and t = damping * scale, damping > 1. With the defaults 0.01 and 1.1, decays last from
48 to 1000 tokens. Scale 1, RoPE's frequencies, would forget nearly everything within three tokens.

Cost: no parameters and no larger cache, but D exponentials for each pair of query and key. An encoding that changes
queries and keys alone is faster.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from miniwin.blocks.positions.base import (
    Heads,
    PositionEncoding,
    Positions,
    PositionSpec,
    ScoreFunction,
    located,
)
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveReal, Real


class Hyperbolic(PositionEncoding):
    """rates (D,) float64: decay per token of the D/2 coordinates a, then of the D/2 coordinates b."""

    counts_tokens = "hope's decay counts the tokens between query and key"

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self._rates = rates

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        return _light_cone(q), _light_cone(k)

    def score(self) -> ScoreFunction:
        def score(q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
            dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
            rates = self._rates.to(q.device, dtype)
            # Keys after the query are masked later; their growth must not overflow before that.
            decay = (-distance.clamp(min=0).unsqueeze(-1) * rates).exp()  # (n, m, D)
            keys = k.to(dtype).unsqueeze(1) * decay.unsqueeze(-2)  # (B, n, m, Hkv, D)
            queries = q.to(dtype).unflatten(2, (k.shape[2], -1))  # (B, n, Hkv, G, D)
            return torch.einsum("bnkgc,bnmkc->bkgnm", queries, keys).flatten(1, 2)  # (B, H, n, m)

        return score


def _light_cone(x: Tensor) -> Tensor:
    """(..., D) -> (..., D): a of every channel pair, then b. A rotation by 45 degrees and a reflection: norms stay."""
    wide = x if x.dtype == torch.float64 else x.float()
    first, second = wide[..., 0::2], wide[..., 1::2]
    return (torch.cat((first + second, first - second), dim=-1) * 0.5**0.5).to(x.dtype)


@POSITIONS.register
class HyperbolicSpec(PositionSpec):
    """`position: {type: hope, scale: 0.01, damping: 1.1}`"""

    type: Literal["hope"] = "hope"
    rope_theta: PositiveReal = 10000.0
    scale: PositiveReal = 0.01
    damping: Annotated[Real, Field(gt=1)] = 1.1

    @property
    def by_distance(self) -> bool:
        return True

    def check(self, heads: Heads) -> None:
        if heads.head_dim % 2:
            raise located("head_dim", f"got {heads.head_dim}; hope boosts channels in pairs, so it must be even")

    def build(self, heads: Heads) -> Hyperbolic:
        pairs = torch.arange(0, heads.head_dim, 2, dtype=torch.float64, device="cpu")
        rapidities = self.scale * self.rope_theta ** (-pairs / heads.head_dim)  # (D/2,)
        damping = self.damping * self.scale
        return Hyperbolic(torch.cat((damping - rapidities, damping + rapidities)))
