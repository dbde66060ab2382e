"""Several periods in one layer, as harmonic P-RoPE takes them: one for each head, or a mix that the query chooses.

Dealt out (`periods: [16, 64, 256]`): key/value head h turns by period h mod P of the list, and so do the query heads
that share it. Each head is exactly periodic and exactly relative.

Mixed by content (`gate: true`): each query head weighs the periods by its own query,

    w(i) = softmax(A q_i + b),   score_ij = sum_r w_r(i) <R_r q_i, R_r k_j>

R_r: the rotation of period r. A (P, D) and b (P,) belong to the query head and start at zero, so that all weights are
1/P. The score depends on the query's content and on i - j: it is relative and causal. It repeats with the least common
multiple of the periods. It is one inner product,

    <(w_1 R_1 q, ..., w_P R_P q, q'), (R_1 k, ..., R_P k, k')>

q', k': the channels that do not turn, once, since weights sum to 1. So the cache holds a key once for each period, and
any backend for keys wider than values answers the call. Both forms are ours.

Shapes: B batch, N tokens, H heads, Hkv key/value heads, D head_dim, K turned pairs, P periods.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from miniwin.blocks.positions.base import PositionEncoding, Positions
from miniwin.blocks.positions.rope import Rope
from miniwin.blocks.positions.rotation import rotate


class PeriodPerHead(PositionEncoding):
    """ropes: one for each period. of_head: which of them each key/value head takes."""

    def __init__(self, ropes: Sequence[Rope], of_head: Sequence[int], num_heads: int) -> None:
        super().__init__()
        self.ropes = nn.ModuleList(ropes)
        self.k_heads = list(of_head)
        self.q_heads = [rope for rope in of_head for _ in range(num_heads // len(of_head))]

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        if q.shape[1] == 1 and not torch.is_grad_enabled():  # decoding: one operation for both is faster than two
            both = self._turn(torch.cat((q, k), 2), positions, self.q_heads + self.k_heads)
            return both[:, :, : q.shape[2]], both[:, :, q.shape[2] :]
        return self._turn(q, positions, self.q_heads), self._turn(k, positions, self.k_heads)

    def _turn(self, x: Tensor, positions: Positions, of_head: list[int]) -> Tensor:
        """x (B, N, len(of_head), D), each head turned by its own rope."""
        ropes, dtype = _all(self.ropes), _dtype(x)
        key = (*(ropes[i].alike for i in of_head), dtype)
        found: tuple[Tensor, Tensor] | None = positions.shared.get(key)
        if found is None:
            parts = [rope.shared(positions, dtype) for rope in ropes]  # cos, sin (1 or B, N, K) each
            cos, sin = (torch.stack([parts[i][j] for i in of_head], -2) for j in range(2))  # (1 or B, N, heads, K)
            found = cos, sin
            if not torch.compiler.is_compiling():
                positions.shared[key] = found
        return rotate(x, *found, ropes[0].interleaved)


class GatedPeriods(PositionEncoding):
    """ropes: one for each period, which all heads have. channels: 2K, the first of each head, which turn."""

    undecayed = ("bias",)

    def __init__(self, ropes: Sequence[Rope], channels: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.ropes = nn.ModuleList(ropes)
        self.channels = channels
        self.weight = nn.Parameter(torch.zeros(num_heads, len(ropes), head_dim))  # A
        self.bias = nn.Parameter(torch.zeros(num_heads, len(ropes)))  # b

    def weights(self, q: Tensor) -> Tensor:
        """The weights of the periods: queries (B, N, H, D) -> (B, N, H, P), each at least 0, their sum 1."""
        return torch.softmax(torch.einsum("bnhd,hpd->bnhp", q, self.weight.to(q.dtype)) + self.bias.to(q.dtype), -1)

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """(B, N, H, D), (B, N, Hkv, D) -> (B, N, H, 2K P + D - 2K), (B, N, Hkv, 2K P + D - 2K)."""
        weights, (q_turned, q_still), (k_turned, k_still) = self.weights(q), self._split(q), self._split(k)
        queries, keys = [], []
        for r, rope in enumerate(_all(self.ropes)):
            cos, sin = rope.shared(positions, _dtype(q))
            queries.append((rope.turn(q_turned, cos, sin) * weights[..., r : r + 1]).to(q.dtype))
            keys.append(rope.turn(k_turned, cos, sin))
        return torch.cat((*queries, q_still), -1), torch.cat((*keys, k_still), -1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., : self.channels], x[..., self.channels :]


def _all(ropes: nn.ModuleList) -> list[Rope]:
    return [*ropes]  # type: ignore[list-item]


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype of angles for x."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
