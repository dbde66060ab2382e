"""Relative positions of Transformer-XL (Dai et al., arXiv 1901.02860, section 3.3).

    score_ij = (q_i + u) . k_j + (q_i + v) . W r_{i-j},   r_d = [sin(d w_1) .. sin(d w_K), cos(d w_1) .. cos(d w_K)]

u and v are learned vectors per head, W a learned (D, 2K) matrix per head, w_k = rope_theta^(-k/K) for k = 0 .. K-1.

The authors' code makes r for every distance and shifts a matrix of scores. The addition theorems give the same result
exactly: with [s, c] = W^T (q_i + v),

    [s, c] . r_{i-j} = sum_k (s_k sin(i w_k) + c_k cos(i w_k)) cos(j w_k) + (c_k sin(i w_k) - s_k cos(i w_k)) sin(j w_k)

which is a dot product of a vector of the query and a vector of the key. So queries and keys widen from D to D + 2K

    q' = [q + u, s sin + c cos, c sin - s cos] at i,    k' = [k, cos, sin] at j

and any kernel for plain dot products computes the scores, in linear memory and with an ordinary cache. Angles are
computed in float64 and rounded once. Scores keep the paper's scale 1/sqrt(D), whatever the width.

A position may be a distribution, N(mean, variance), independent of the others. The expected r is then r of the means,
with frequency k multiplied by exp(-w_k^2 variance / 2) once for the query and once for the key.

Cost: H * D * (2K + 2) parameters, and 2K more numbers cached per key head and token.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.positions.base import Heads, PositionEncoding, Positions, PositionSpec
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveInt, PositiveReal


class TransformerXL(PositionEncoding):
    """frequencies (K,) float64."""

    undecayed = ("content_bias", "position_bias")

    def __init__(self, num_heads: int, head_dim: int, frequencies: Tensor) -> None:
        super().__init__()
        self.content_bias = nn.Parameter(torch.empty(num_heads, head_dim))  # u
        self.position_bias = nn.Parameter(torch.empty(num_heads, head_dim))  # v
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim, 2 * len(frequencies)))  # W
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)
        self._frequencies = frequencies

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        sin, cos = (t.to(dtype).unsqueeze(-2) for t in self._features(positions))  # (1 or B, N, 1, K)
        wide = q.to(dtype)
        coefficients = torch.einsum("bnhd,hdf->bnhf", wide + self.position_bias.to(dtype), self.weight.to(dtype))
        s, c = coefficients.chunk(2, dim=-1)  # (B, N, H, K) each
        queries = torch.cat((wide + self.content_bias.to(dtype), s * sin + c * cos, c * sin - s * cos), dim=-1)
        place = torch.cat((cos, sin), dim=-1).to(k.dtype).expand(*k.shape[:-1], -1)  # (B, N, Hkv, 2K)
        return queries.to(q.dtype), torch.cat((k, place), dim=-1)

    def _frequencies_on(self, device: torch.device) -> Tensor:
        """The frequencies, moved to `device` and kept there. A move waits for the device; a CUDA graph allows none."""
        own = self._frequencies
        if own.device != device:
            own = own.to(device)
            if device.type != "meta" and not torch.compiler.is_compiling():
                self._frequencies = own
        return own

    def _features(self, positions: Positions) -> tuple[Tensor, Tensor]:
        """sin and cos of every frequency at every position, attenuated by its variance: (1 or B, N, K) float64."""
        at = positions.index.to(torch.float64) if positions.mean is None else positions.mean
        frequencies = self._frequencies_on(at.device)
        turn = at.unsqueeze(-1) * frequencies
        if positions.variance is None:
            return turn.sin(), turn.cos()
        fading = (positions.variance.unsqueeze(-1) * frequencies.square() / -2).exp()
        return turn.sin() * fading, turn.cos() * fading


@POSITIONS.register
class TransformerXLSpec(PositionSpec):
    """`position: {type: transformer-xl}`. num_frequencies: K above, default head_dim / 2 (rounded up)."""

    type: Literal["transformer-xl"] = "transformer-xl"
    num_frequencies: PositiveInt | None = None
    rope_theta: PositiveReal = 10000.0

    def count(self, heads: Heads) -> int:
        return self.num_frequencies or (heads.head_dim + 1) // 2

    def build(self, heads: Heads) -> TransformerXL:
        count = self.count(heads)
        frequencies = self.rope_theta ** (-torch.arange(count, dtype=torch.float64, device="cpu") / count)
        return TransformerXL(heads.num_heads, heads.head_dim, frequencies)

    def parameters(self, heads: Heads) -> int:
        return heads.num_heads * heads.head_dim * (2 * self.count(heads) + 2)

    def key_dim(self, heads: Heads) -> int:
        return heads.head_dim + 2 * self.count(heads)

    def flops(self, heads: Heads) -> float:
        return 4.0 * heads.num_heads * heads.head_dim * self.count(heads)

    def canonical(self, heads: Heads) -> dict[str, object]:
        return {"type": self.type, "num_frequencies": self.count(heads), "rope_theta": self.rope_theta}
