"""Which keys a query may see, as a mask: causal, sliding window, chunk, documents, padding.

Shapes: N queries, M keys, M >= N; H heads; B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.blocks.attention_ops.call import AttentionCall
from miniwin.blocks.positions.base import ScoreBias


def distances(num_queries: int, num_keys: int, first: int, device: torch.device) -> Tensor:
    """i - j for queries at key indices first, first + 1, ...: (num_queries, num_keys) int64."""
    queries = torch.arange(first, first + num_queries, device=device)
    return queries.unsqueeze(1) - torch.arange(num_keys, device=device)


def visible(distance: Tensor, window: int | None) -> Tensor:
    """Whether a key at this distance is visible, 0 <= i - j < W: bool, the shape of `distance`."""
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def additive_mask(distance: Tensor, window: int | None, bias: ScoreBias | None) -> Tensor:
    """(1 or H, n, m) float32: the bias (or 0) where a key is visible, else -inf."""
    seen = visible(distance, window)
    values = torch.zeros(1, *distance.shape, device=distance.device) if bias is None else bias(distance)
    return values.masked_fill(~seen, float("-inf"))


def full_mask(call: AttentionCall) -> Tensor:
    """Window, chunk, documents, padding and bias as one additive mask: (1 or B, 1 or H, N, M) float32.

    A padding token sees its own key, since softmax needs at least one.
    """
    n, m = call.q.shape[1], call.k.shape[1]
    distance = distances(n, m, call.offset, call.q.device)
    mask = additive_mask(distance, call.window, call.bias).unsqueeze(0)  # (1, 1 or H, N, M)
    key = torch.arange(m, device=mask.device)
    if call.documents is not None:
        number = call.documents.numbers[:, None, None]  # (B, N) -> (B, 1, 1, N); M = N
        mask = mask.masked_fill(number.transpose(-1, -2) != number, float("-inf"))
    if call.chunk is not None:
        chunk = call.row_index().view(-1, 1, 1, m) // call.chunk  # (1 or B, M) -> (1 or B, 1, 1, M)
        mask = mask.masked_fill(chunk[..., call.offset :].transpose(-1, -2) != chunk, float("-inf"))
    if call.pad is not None:
        hidden = (key < call.pad.view(-1, 1)).view(-1, 1, 1, m) & (distance != 0)
        mask = mask.masked_fill(hidden, float("-inf"))
    return mask
