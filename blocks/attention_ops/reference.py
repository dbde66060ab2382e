"""The naive reference: the score of every pair, in float32 (float64 for float64). All other backends must agree."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from miniwin.blocks.attention_ops.call import AttentionCall, unnarrowed
from miniwin.blocks.attention_ops.mask import distances, full_mask

NAME = "reference"
HONOURS = frozenset(
    {"window", "bias", "pad", "chunk", "kept", "sinks", "softcap", "log_gates", "score", "weighting", "value_dim"}
    | {"documents"}
)


def declines(call: AttentionCall) -> str | None:
    return call.beyond(HONOURS)


def ill_suited(call: AttentionCall) -> str | None:
    return None


def run(call: AttentionCall) -> Tensor:
    with unnarrowed(call.q.device):
        return _attended(call)


def _attended(call: AttentionCall) -> Tensor:
    q, v = call.q.to(call.wide), _per_query_head(call, call.v)  # (B, N, H, Dk), (B, H, M, Dv)
    distance = distances(q.shape[1], v.shape[2], call.offset, q.device)  # (N, M)
    if call.score is None:
        scores = _products(call, call.k)
    else:
        scores = _scaled(call, call.score(q, call.k.to(call.wide), distance))
    mask = full_mask(call)
    scores = scores + mask  # (B, H, N, M)
    if call.log_gates is not None:
        total = call.log_gates.double().cumsum(1).transpose(1, 2)  # (B, H, M)
        scores = scores + (total[:, :, call.offset :, None] - total[:, :, None]).to(call.wide)
    if call.weighting == "stick-breaking":
        weights = _stick(scores, (mask > float("-inf")) & (distance > 0))
        return (weights @ v).transpose(1, 2).to(call.q.dtype)
    # One softmax over all columns: the keys, the sink tokens, and the sink, whose value is zero.
    if call.kept is not None:
        kept = _products(call, call.kept.k).masked_fill(~call.kept.seen.unsqueeze(1), float("-inf"))
        scores, v = torch.cat((scores, kept), -1), torch.cat((v, _per_query_head(call, call.kept.v)), 2)
    if call.sinks is not None:
        sink = call.sinks.to(call.wide).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores, v = torch.cat((scores, sink), -1), torch.cat((v, torch.zeros_like(v[:, :, :1])), 2)
    return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).to(call.q.dtype)


def _per_query_head(call: AttentionCall, rows: Tensor) -> Tensor:
    """(B, M, Hkv, D) -> (B, H, M, D)."""
    return rows.to(call.wide).transpose(1, 2).repeat_interleave(call.q.shape[2] // rows.shape[2], dim=1)


def _products(call: AttentionCall, k: Tensor) -> Tensor:
    """Scaled scores of keys k (B, M, Hkv, Dk): (B, H, N, M)."""
    q = call.q.to(call.wide).transpose(1, 2)  # (B, H, N, Dk)
    return _scaled(call, q @ _per_query_head(call, k).transpose(-1, -2))


def _scaled(call: AttentionCall, scores: Tensor) -> Tensor:
    scores = scores * call.scale
    return scores if call.softcap is None else call.softcap * torch.tanh(scores / call.softcap)


def _stick(scores: Tensor, seen: Tensor) -> Tensor:
    """A_ij = sigmoid(s_ij) * prod_{j < k < i} (1 - sigmoid(s_ik)) over the seen keys, as a sum of logarithms."""
    scores = scores.masked_fill(~seen, 0.0)
    left = logsigmoid(-scores).masked_fill(~seen, 0.0)
    nearer = pad(left, (0, 1))[..., 1:].flip(-1).cumsum(-1).flip(-1)  # log of what the keys between j and i leave
    return torch.exp(logsigmoid(scores) + nearer).masked_fill(~seen, 0.0)
