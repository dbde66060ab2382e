"""Any attention on any device, a tile of queries at a time, in plain tensor operations: memory is linear in length.

A tile reads only the keys that its window or chunk can reach. Its scores are computed in float32, under autocast too,
and not kept. In training the backward computes them once more (torch.utils.checkpoint), unless there is only one tile.

All features are honoured, and gradients reach everything: queries, keys, values, sinks, sink tokens, forget gates,
learned score biases.

Forget gates (forgetting attention, arXiv 2503.02130) enter as differences c_i - c_j of running sums. The sums are taken
in float64, and each is split into two float32 numbers, high and low. A difference of two such pairs is as exact as a
difference rounded from float64, even after a million tokens. Stick-breaking (arXiv 2410.17980) is a running sum of
log(1 - beta) over the keys of a tile, starting at the nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad
from torch.utils.checkpoint import checkpoint

from miniwin.blocks.attention_ops.call import AttentionCall, unnarrowed
from miniwin.blocks.attention_ops.mask import distances, visible
from miniwin.blocks.attention_ops.reference import HONOURS

NAME = "tiled"

QUERIES = 128  # the most queries of a tile
SCORES = 1 << 23  # the most scores of a tile; a tile of one query may have more


def declines(call: AttentionCall) -> str | None:
    return call.beyond(HONOURS)


def ill_suited(call: AttentionCall) -> str | None:
    return None


def run(call: AttentionCall) -> Tensor:
    tiles = _Tiles(call)
    with unnarrowed(call.q.device):  # a checkpoint restores this setting in the backward
        if len(tiles.firsts) == 1 or not torch.is_grad_enabled():
            return torch.cat([tiles.attend(first) for first in tiles.firsts], 1)
        outs = [checkpoint(tiles.attend, f, use_reentrant=False, preserve_rng_state=False) for f in tiles.firsts]
        return torch.cat(outs, 1)


class _Rows:
    """Rows of tokens (B, M, ...), from which tiles take stretches.

    In training rows are first split into pieces, and a stretch is joined from pieces. A slice would not do: its
    gradient is as long as the row, so one slice for each tile would make the backward quadratic.
    """

    def __init__(self, rows: Tensor, size: int) -> None:
        self.rows, self.size = rows, size
        self.pieces = rows.split(size, 1) if rows.requires_grad and torch.is_grad_enabled() else None

    def take(self, begin: int, end: int) -> Tensor:
        """Tokens begin .. end: (B, end - begin, ...)."""
        if self.pieces is None:
            return self.rows[:, begin:end]
        piece = begin // self.size
        joined = torch.cat(self.pieces[piece : -(-end // self.size)], 1)
        return joined[:, begin - piece * self.size : end - piece * self.size]


class _Tiles:
    """A call, cut along its queries. Shapes as in AttentionCall; a tile has T queries and S keys."""

    def __init__(self, call: AttentionCall) -> None:
        self.call = call
        batch, n, heads, _ = call.q.shape
        m = call.k.shape[1]
        self.reach = min(m, call.window or call.chunk or m)  # the most keys that a query sees
        self.size = max(1, min(QUERIES, SCORES // (batch * heads * min(m, self.reach + QUERIES))))
        self.firsts = range(0, n, self.size)
        self.q, self.k, self.v = (_Rows(rows, self.size) for rows in (call.q, call.k, call.v))
        self.gates = [] if call.log_gates is None else [_Rows(part, self.size) for part in _sums(call)]

    def attend(self, first: int) -> Tensor:
        """Queries first .. first + T -> (B, T, H, Dv)."""
        call, last = self.call, min(first + self.size, self.call.q.shape[1])
        at, end = call.offset + first, call.offset + last
        begin = max(0, at - self.reach + 1)
        q = self.q.take(first, last).to(call.wide)  # (B, T, H, Dk)
        k, v = (rows.take(begin, end).to(call.wide) for rows in (self.k, self.v))  # (B, S, Hkv, D)
        distance = distances(last - first, end - begin, at - begin, q.device)  # (T, S)
        # (B, H, T, S)
        scores = _bounded(call, _products(q, k) if call.score is None else call.score(q, k, distance))
        if call.bias is not None:
            scores = scores + call.bias(distance)
        for part in self.gates:
            own, seen = part.take(at, end).transpose(1, 2), part.take(begin, end).transpose(1, 2)  # (B, H, T or S)
            scores = scores + (own.unsqueeze(-1) - seen.unsqueeze(-2))
        seen = self._seen(distance, begin)
        if call.weighting == "stick-breaking":
            return _mix(_stick(scores, seen & (distance > 0)), v).to(call.q.dtype)
        columns = [scores.masked_fill(~seen, float("-inf"))]
        if call.kept is not None:
            kept = _bounded(call, _products(q, call.kept.k.to(call.wide)))
            columns.append(kept.masked_fill(~call.kept.seen[:, None, first:last], float("-inf")))
            v = torch.cat((v, call.kept.v.to(call.wide)), 1)
        if call.sinks is not None:  # a key without a value, which only takes weight away
            columns.append(call.sinks.to(call.wide).view(1, -1, 1, 1).expand(*scores.shape[:3], 1))
        weights = torch.softmax(torch.cat(columns, -1) if len(columns) > 1 else columns[0], -1)
        return _mix(weights[..., : v.shape[1]], v).to(call.q.dtype)

    def _seen(self, distance: Tensor, begin: int) -> Tensor:
        """Which keys a query sees, (1 or B, 1, T, S) bool. A padding token sees its own key: softmax needs one."""
        call, queries = self.call, distance.shape[0]
        seen = visible(distance, call.window)[None, None]
        key = torch.arange(begin, begin + distance.shape[1], device=distance.device)
        if call.documents is not None:
            number = call.documents.numbers[:, None, None, begin : begin + len(key)]
            seen = seen & (number == number[..., -queries:].transpose(-1, -2))  # the last keys are the queries' own
        if call.chunk is not None:
            chunk = call.row_index()[:, None, None, begin : begin + len(key)] // call.chunk
            seen = seen & (chunk == chunk[..., -queries:].transpose(-1, -2))
        if call.pad is not None:
            seen = seen & ((key >= call.pad.view(-1, 1, 1, 1)) | (distance == 0))
        return seen


def _products(q: Tensor, k: Tensor) -> Tensor:
    """q (B, T, H, D), k (B, S, Hkv, D) -> (B, H, T, S). Query heads that share a key head are rows of one matrix."""
    heads, kv_heads = q.shape[2], k.shape[2]
    grouped = q.transpose(1, 2).unflatten(1, (kv_heads, -1)).flatten(2, 3)  # (B, Hkv, H/Hkv * T, D)
    scores = grouped @ k.permute(0, 2, 3, 1)  # (B, Hkv, H/Hkv * T, S)
    return scores.unflatten(2, (heads // kv_heads, -1)).flatten(1, 2)


def _mix(weights: Tensor, v: Tensor) -> Tensor:
    """weights (B, H, T, S), v (B, S, Hkv, D) -> (B, T, H, D)."""
    grouped = weights.unflatten(1, (v.shape[2], -1))  # (B, Hkv, H/Hkv, T, S)
    out = grouped.flatten(2, 3) @ v.transpose(1, 2)  # (B, Hkv, H/Hkv * T, D)
    return out.unflatten(2, grouped.shape[2:4]).flatten(1, 2).transpose(1, 2)


def _bounded(call: AttentionCall, scores: Tensor) -> Tensor:
    scores = scores.to(call.wide) * call.scale
    return scores if call.softcap is None else call.softcap * torch.tanh(scores / call.softcap)


def _sums(call: AttentionCall) -> list[Tensor]:
    """Running sums of the log gates, as addends (B, M, H): one in float64, or two in float32."""
    assert call.log_gates is not None
    device = call.log_gates.device
    total = call.log_gates.to("cpu" if device.type == "mps" else device, torch.float64).cumsum(1)
    if call.wide == torch.float64:
        return [total]
    high = total.float()
    low = (total - high.double()).detach().float()  # the gradient goes through `high`
    return [high.to(device), low.to(device)]


def _stick(scores: Tensor, seen: Tensor) -> Tensor:
    """A_ij, where log A_ij = log sigmoid(s_ij) + sum of log(1 - sigmoid(s_ik)) over the seen keys k between j and i."""
    scores = scores.masked_fill(~seen, 0.0)
    left = logsigmoid(-scores).masked_fill(~seen, 0.0)
    nearer = pad(left[..., 1:].flip(-1).cumsum(-1).flip(-1), (0, 1))
    return torch.exp(logsigmoid(scores) + nearer).masked_fill(~seen, 0.0)
