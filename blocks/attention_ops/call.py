"""What every attention backend is asked: one call, and which keys a query may see.

Shapes: q (B, N, H, D); k, v (B, M, Hkv, D), M >= N, Hkv divides H. The queries are the last N of the M keys' tokens:
query i stands at key index M - N + i. Query head h reads key/value head h // (H / Hkv).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from miniwin.blocks.positions.base import ScoreBias


def dense(t: Tensor) -> Tensor:
    """The same tensor, its last dimension contiguous, as the CPU kernels need it."""
    return t if t.stride(-1) == 1 else t.contiguous()


@dataclass(frozen=True)
class AttentionCall:
    """q, k, v as above.

    scale: multiplies the scores. window: keys a query sees at most, itself included; None is all.
    bias: added to the scaled scores, a function of distance. pad (B,): how many leading keys of each row are padding,
    seen by nobody but themselves; None is none.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    window: int | None = None
    bias: ScoreBias | None = None
    pad: Tensor | None = None

    @property
    def offset(self) -> int:
        """Keys that came before the first query."""
        return self.k.shape[1] - self.q.shape[1]


def distances(num_queries: int, num_keys: int, first: int, device: torch.device) -> Tensor:
    """i - j for queries standing at key indices first, first + 1, ...: (num_queries, num_keys) int64."""
    queries = torch.arange(first, first + num_queries, device=device)
    return queries.unsqueeze(1) - torch.arange(num_keys, device=device)


def visible(distance: Tensor, window: int | None) -> Tensor:
    """Whether a key at this distance is seen: 0 <= i - j < W."""
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def additive_mask(distance: Tensor, window: int | None, bias: ScoreBias | None) -> Tensor:
    """(1 or H, n, m) float32: the bias where a key is seen, -inf where it is not."""
    seen = visible(distance, window)
    values = torch.zeros(1, *distance.shape, device=distance.device) if bias is None else bias(distance)
    return values.masked_fill(~seen, float("-inf"))


def full_mask(call: AttentionCall) -> Tensor:
    """The whole mask, additive: (1 or B, 1 or H, N, M) float32. Padding sees itself, so that no row is empty."""
    n, m = call.q.shape[1], call.k.shape[1]
    distance = distances(n, m, call.offset, call.q.device)
    mask = additive_mask(distance, call.window, call.bias).unsqueeze(0)
    if call.pad is not None:
        key = torch.arange(m, device=mask.device)
        hidden = (key < call.pad.view(-1, 1)).view(-1, 1, 1, m) & (distance != 0)
        mask = mask.masked_fill(hidden, float("-inf"))
    return mask
