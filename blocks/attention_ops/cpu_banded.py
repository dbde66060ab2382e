"""Sliding-window attention on a CPU, linear in length.

The sequence is folded into tiles of T queries. A tile sees its own T keys and the P >= W - 1 before it, so the keys
of all tiles are one *overlapping strided view* of k (no copy), and one call of torch's CPU flash kernel with one small
mask (T, P + T) shared by all tiles does the work. Three parts make up a row:

    head   the first queries, whose tile would begin before the first key: one dense masked call, about W by W
    body   whole tiles, as above
    tail   fewer than T queries that are left over: one dense masked call

Grouped-query heads are the kernel's. A batch of several rows is one call too where tiles overlap little, at the price
of a copy of the keys; otherwise rows take turns, as they do when they are padded (padding is cut off before, so that it
costs nothing). The backward calls the flash backward on the same parts and folds the overlapping key and value
gradients back; bfloat16 is upcast there, since torch's bfloat16 CPU backward is slower than float32.

Further keys outside the band (kept first tokens, an attention sink) are few: theirs is an ordinary attention, of output
E and log-sum-exp L, merged into the band's output o and log-sum-exp l of each query:

    t = log(e^l + e^L);   out = e^(l - t) o + e^(L - t) E

Given out and t in place of o and l, the flash backward yields the band's gradients under the whole softmax. The rest is
dE = e^(L - t) dout and dL = e^(L - t) <dout, E - out>, from where autograd goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from miniwin.blocks.attention_ops.call import AttentionCall, additive_mask, dense, distances
from miniwin.blocks.positions.base import ScoreBias

NAME = "cpu_banded"
HONOURS = frozenset({"window", "bias", "pad", "kept", "sinks", "value_dim"})

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on a CPU, not on {call.q.device.type}"
    if call.window is None:
        return "it is for a window; a global layer sees every key"
    if call.bias is not None and call.bias(torch.zeros(1, 1, dtype=torch.int64)).requires_grad:
        return "its backward gives no gradient to a learned score bias"
    return call.beyond(HONOURS)


def run(call: AttentionCall) -> Tensor:
    pad = None if call.pad is None else call.pad.tolist()
    assert call.window is not None
    values, widest = call.v.shape[-1], max(call.v.shape[-1], call.k.shape[-1])
    q, k, v = (dense(t if t.shape[-1] == widest else _widened(t, widest)) for t in (call.q, call.k, call.v))
    further = (None, None) if call.kept is None and call.sinks is None else _further(call, widest)
    out: Tensor = _Banded.apply(q, k, v, *further, call.scale, call.window, call.bias, pad)
    return out[..., :values]


def _widened(rows: Tensor, dim: int) -> Tensor:
    """The kernel wants values as wide as keys: zeros change neither scores nor the values before them."""
    return functional.pad(rows, (0, dim - rows.shape[-1]))


def _further(call: AttentionCall, dim: int) -> tuple[Tensor, Tensor]:
    """Attention over the keys outside the band: its output (B, N, H, dim), and log-sum-exp (B, N, H) of its scores."""
    shape, columns = call.q.shape[:3], []
    if call.kept is not None:
        k = call.kept.k.to(call.wide)
        grouped = call.q.to(call.wide).unflatten(2, (k.shape[2], -1))  # (B, N, Hkv, H/Hkv, D)
        scores = torch.einsum("bngxd,bsgd->bngxs", grouped, k).flatten(2, 3) * call.scale  # (B, N, H, S)
        # Finite, so that a query that sees none of them has no NaN: next to its band's scores this is nothing.
        columns.append(scores.masked_fill(~call.kept.seen.unsqueeze(2), -1e30))
    if call.sinks is not None:
        columns.append(call.sinks.to(call.wide).view(-1, 1).expand(*shape, 1))
    logits = torch.cat(columns, -1)
    if call.kept is None:
        return logits.new_zeros(()).expand(*shape, dim), logits.squeeze(-1)
    v = call.kept.v.to(call.wide)
    weights = torch.softmax(logits, -1)[..., : v.shape[1]].unflatten(2, (v.shape[2], -1))
    out = torch.einsum("bngxs,bsgd->bngxd", weights, v).flatten(2, 3)
    return _widened(out, dim), torch.logsumexp(logits, -1)


@dataclass(frozen=True)
class _Part:
    """Queries first .. first + tiles * length of each row, against keys from `key` on: `span` of them per tile."""

    first: int
    length: int
    tiles: int
    key: int
    span: int

    def queries(self, rows: Tensor) -> Tensor:
        """rows (B, N, H, D) -> (B, tiles, length, H, D), a view."""
        return rows[:, self.first : self.first + self.tiles * self.length].unflatten(1, (self.tiles, self.length))

    def keys(self, rows: Tensor) -> Tensor:
        """rows (B, M, Hkv, D) -> (B, tiles, span, Hkv, D), a view in which neighbouring tiles overlap."""
        batch, step, head, channel = rows.stride()
        size = (rows.shape[0], self.tiles, self.span, *rows.shape[2:])
        stride = (batch, self.length * step, step, head, channel)
        return rows.as_strided(size, stride, rows.storage_offset() + self.key * step)

    def fold(self, grad: Tensor, rows: Tensor) -> None:
        """Add the tiles' key gradients (B, tiles, span, Hkv, D) into rows (B, M, Hkv, D), overlaps summed."""
        if self.tiles == 1:
            rows[:, self.key : self.key + self.span] += grad[:, 0]
            return
        for piece in range(0, self.span, self.length):
            begin = self.key + piece
            target = rows[:, begin : begin + self.tiles * self.length].unflatten(1, (self.tiles, self.length))
            target += grad[:, :, piece : piece + self.length]

    def mask(self, offset: int, window: int, bias: ScoreBias | None, dtype: torch.dtype) -> Tensor:
        """(1, 1 or H, length, span): the same for every tile. bfloat16 would round a bias: that stays float32."""
        distance = distances(self.length, self.span, offset + self.first - self.key, torch.device("cpu"))
        mask = additive_mask(distance, window, bias).unsqueeze(0)
        return mask.to(dtype if bias is None else torch.promote_types(dtype, torch.float32))


def _parts(n: int, m: int, window: int) -> list[_Part]:
    """Cut rows of n queries and m keys into head, body and tail."""
    offset = m - n
    tile = _tile(window)
    before = -(-(window - 1) // tile) * tile
    first = min(n, -(-max(before - offset, 0) // tile) * tile)
    tiles = (n - first) // tile
    parts = []
    if first:
        key = max(0, offset - window + 1)
        parts.append(_Part(0, first, 1, key, offset + first - key))
    if tiles:
        parts.append(_Part(first, tile, tiles, offset + first - before, before + tile))
    done = first + tiles * tile
    if done < n:
        key = max(0, offset + done - window + 1)
        parts.append(_Part(done, n - done, 1, key, m - key))
    return parts


def _tile(window: int) -> int:
    return 32 if window <= 128 else 64


def _rows(q: Tensor, k: Tensor, window: int, pad: list[int] | None) -> Iterator[tuple[slice, slice, slice]]:
    """Which batch rows go together, and their real queries and keys."""
    offset = k.shape[1] - q.shape[1]
    if pad is None and window <= 3 * _tile(window):  # a tile's keys are then at most four times its own
        yield slice(None), slice(None), slice(None)
        return
    for b in range(q.shape[0]):
        skip = 0 if pad is None else pad[b]
        if skip == k.shape[1]:
            continue  # so far this row is nothing but padding
        yield slice(b, b + 1), slice(max(skip - offset, 0), None), slice(skip, None)


def _heads_first(tiles: Tensor) -> Tensor:
    """(B, tiles, length, H, D) -> (B * tiles, H, length, D), as the kernel takes it; so too without D."""
    return tiles.flatten(0, 1).transpose(1, 2)


def _tokens_first(heads: Tensor, like: Tensor) -> Tensor:
    """The way back: (B * tiles, H, length, D) -> (B, tiles, length, H, D); so too without D."""
    return heads.transpose(1, 2).unflatten(0, like.shape[:2])


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        more: Tensor | None,
        more_log: Tensor | None,
        scale: float,
        window: int,
        bias: ScoreBias | None,
        pad: list[int] | None,
    ) -> Tensor:
        out = torch.zeros(q.shape, dtype=q.dtype) if pad is not None else torch.empty(q.shape, dtype=q.dtype)
        sums: list[Tensor] = []
        masks: dict[tuple[_Part, int], Tensor] = {}
        for rows, queries, keys in _rows(q, k, window, pad):
            q_rows, k_rows, v_rows, o_rows = q[rows, queries], k[rows, keys], v[rows, keys], out[rows, queries]
            offset = k_rows.shape[1] - q_rows.shape[1]
            for part in _parts(q_rows.shape[1], k_rows.shape[1], window):
                if (part, offset) not in masks:
                    masks[part, offset] = part.mask(offset, window, bias, q.dtype)
                target = part.queries(o_rows)
                o, log_sum = _flash(
                    _heads_first(part.queries(q_rows)),
                    _heads_first(part.keys(k_rows)),
                    _heads_first(part.keys(v_rows)),
                    attn_mask=masks[part, offset],
                    scale=scale,
                )
                if more is not None and more_log is not None:
                    other_log = _heads_first(part.queries(more_log[rows, queries]))
                    total = torch.logaddexp(log_sum, other_log)
                    other = _heads_first(part.queries(more[rows, queries])) * (other_log - total).exp().unsqueeze(-1)
                    o, log_sum = o * (log_sum - total).exp().unsqueeze(-1) + other, total
                target.copy_(_tokens_first(o, target))
                sums.append(log_sum)
        ctx.save_for_backward(q, k, v, more, more_log, out, *sums)
        ctx.settings = (scale, window, pad, masks)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, more, more_log, out, *sums = ctx.saved_tensors
        scale, window, pad, masks = ctx.settings
        dtype, wide = q.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32
        grad = dense(grads[0].to(wide))
        q, k, v, out = q.to(wide), k.to(wide), v.to(wide), out.to(wide)
        grad_q, grad_k, grad_v = (torch.zeros(t.shape, dtype=wide) for t in (q, k, v))
        grad_more, grad_log = (None if t is None else torch.zeros(t.shape, dtype=wide) for t in (more, more_log))
        log_sums = iter(sums)
        for rows, queries, keys in _rows(q, k, window, pad):
            q_rows, k_rows, v_rows = q[rows, queries], k[rows, keys], v[rows, keys]
            g_rows, o_rows = grad[rows, queries], out[rows, queries]
            offset = k_rows.shape[1] - q_rows.shape[1]
            for part in _parts(q_rows.shape[1], k_rows.shape[1], window):
                own, seen, log_sum = part.queries(q_rows), part.keys(k_rows), next(log_sums)
                dq, dk, dv = _flash_backward(
                    _heads_first(part.queries(g_rows)),
                    _heads_first(own),
                    _heads_first(seen),
                    _heads_first(part.keys(v_rows)),
                    _heads_first(part.queries(o_rows)),
                    log_sum,
                    0.0,
                    False,
                    attn_mask=masks[part, offset].to(wide),
                    scale=scale,
                )
                part.queries(grad_q[rows, queries]).copy_(_tokens_first(dq, own))
                part.fold(_tokens_first(dk, seen), grad_k[rows, keys])
                part.fold(_tokens_first(dv, seen), grad_v[rows, keys])
                if more is not None and grad_more is not None and grad_log is not None:
                    g, o = part.queries(g_rows), part.queries(o_rows)
                    share = (part.queries(more_log[rows, queries]) - _tokens_first(log_sum, own)).exp().unsqueeze(-1)
                    part.queries(grad_more[rows, queries]).copy_(share * g)
                    pull = share * g * (part.queries(more[rows, queries]) - o)
                    part.queries(grad_log[rows, queries]).copy_(pull.sum(-1))
        narrow = (grad_q.to(dtype), grad_k.to(dtype), grad_v.to(dtype))
        return *narrow, grad_more, grad_log, None, None, None, None
