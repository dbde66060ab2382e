"""Sliding-window attention on a CPU, linear in length.

The sequence is folded into tiles of T queries. A tile sees its own T keys and P >= W - 1 keys before them. So the keys
of many tiles are one *overlapping strided view* of k (no copy). One call of torch's CPU flash kernel computes them all,
with one small mask (T, P + T) that all tiles share. A row has three kinds of parts:

    head   the first queries, whose tile would begin before the first key: dense masked calls of up to 128 queries
    body   whole tiles, as above, many in a call
    tail   fewer than T queries that are left over: one dense masked call

The query heads that read one key/value head are rows of the same tile, token by token. So a tile of few tokens has
enough rows for the kernel, and few keys that its queries do not see. Several rows of a batch are one call if tiles
overlap little, which costs a copy of the keys; otherwise rows take turns. Padded rows take turns too: their padding is
cut off first and costs nothing. The backward calls the flash backward on larger tiles, since overlapping gradients of
keys and values have to be summed. It computes bfloat16 in float32: torch's bfloat16 CPU backward is slower.

Further keys outside the band (sink tokens, an attention sink) are few. An ordinary attention over them has output E and
log-sum-exp L. For each query it is merged into the band's output o and log-sum-exp l:

    t = log(e^l + e^L);   out = e^(l - t) o + e^(L - t) E

Given out and t in place of o and l, the flash backward yields the band's gradients under the whole softmax. The
gradients dE = e^(L - t) dout and dL = e^(L - t) <dout, E - out> go on through autograd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from miniwin.blocks.attention_ops.call import AttentionCall, dense, one_query
from miniwin.blocks.attention_ops.mask import additive_mask, distances
from miniwin.blocks.positions.base import ScoreBias

NAME = "cpu_banded"
HONOURS = frozenset({"window", "bias", "pad", "kept", "sinks", "value_dim"})

HEAD = 128  # the most queries of a part of the head
FORWARD_TILE = 16  # queries of a tile, few since a larger tile scores more hidden keys; times H / Hkv: its rows
NUMBERS = 1 << 20  # the most numbers in the queries of one part of the body: more gain little and take memory

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


def ill_suited(call: AttentionCall) -> str | None:
    return one_query(call)


def run(call: AttentionCall) -> Tensor:
    pad = None if call.pad is None else call.pad.tolist()
    assert call.window is not None
    values, widest = call.v.shape[-1], max(call.v.shape[-1], call.k.shape[-1])
    q, k, v = (dense(t if t.shape[-1] == widest else _widened(t, widest)) for t in (call.q, call.k, call.v))
    further = (None, None) if call.kept is None and call.sinks is None else _further(call, widest)
    out: Tensor = _Banded.apply(q, k, v, *further, call.scale, call.window, call.bias, pad)
    return out[..., :values]


def _widened(rows: Tensor, dim: int) -> Tensor:
    """Pad with zeros to `dim` channels: the kernel needs keys and values of one width. Results do not change."""
    return functional.pad(rows, (0, dim - rows.shape[-1]))


def _further(call: AttentionCall, dim: int) -> tuple[Tensor, Tensor]:
    """Attention over the keys outside the band: output (B, N, H, dim), and log-sum-exp of the scores (B, N, H)."""
    shape, columns = call.q.shape[:3], []
    if call.kept is not None:
        k = call.kept.k.to(call.wide)
        grouped = call.q.to(call.wide).unflatten(2, (k.shape[2], -1))  # (B, N, Hkv, H/Hkv, D)
        scores = torch.einsum("bngxd,bsgd->bngxs", grouped, k).flatten(2, 3) * call.scale  # (B, N, H, S)
        # A finite number, since -inf in all columns would give NaN. Beside the band's scores its weight is 0.
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


def _backward_tile(window: int) -> int:
    """Queries of a tile in the backward. A key sums gradients of P / T + 1 tiles, so wide windows have large tiles."""
    return 32 if window <= 128 else 64


@dataclass(frozen=True)
class _Part:
    """Tiles of one shape: queries first .. first + tiles * length of each row, and their keys.

    key: the first key of the first tile. span: keys of a tile. distance: from a tile's first key to its first query.
    """

    first: int
    length: int
    tiles: int
    key: int
    span: int
    distance: int

    def queries(self, rows: Tensor) -> Tensor:
        """rows (B, N, H, D) -> (B, tiles, length, H, D), a view. D may be missing."""
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


def _parts(n: int, m: int, window: int, tile: int, most: int) -> Iterator[_Part]:
    """Cut rows of n queries and m keys into head, body and tail. A part of the body has `most` tiles at most."""
    offset = m - n
    before = -(-(window - 1) // tile) * tile  # P: keys before a tile, in whole tiles
    body = min(n, -(-max(before - offset, 0) // tile) * tile)  # the first query of the body
    tail = n - (n - body) % tile  # the first query of the tail

    def dense(first: int, end: int) -> _Part:
        key = max(0, offset + first - window + 1)
        return _Part(first, end - first, 1, key, offset + end - key, offset + first - key)

    for first in range(0, body, HEAD):
        yield dense(first, min(first + HEAD, body))
    for first in range(body, tail, most * tile):
        tiles = min(most, (tail - first) // tile)
        yield _Part(first, tile, tiles, offset + first - before, before + tile, before)
    if tail < n:
        yield dense(tail, n)


@dataclass(frozen=True)
class _Cut:
    """One kernel call: some rows, the queries and keys in them that are not padding, and a part of these."""

    rows: slice
    queries: slice
    keys: slice
    part: _Part

    @staticmethod
    def all(q: Tensor, k: Tensor, window: int, pad: list[int] | None, tile: int) -> Iterator[_Cut]:
        n, m, whole = q.shape[1], k.shape[1], slice(None)
        most = max(1, NUMBERS // (tile * q.shape[2] * q.shape[3]))
        if pad is None:
            together = window <= tile  # then a tile has at most twice as many keys as queries
            for part in _parts(n, m, window, tile, max(1, most // len(q)) if together else most):
                if together or part.tiles == 1:
                    yield _Cut(whole, whole, whole, part)
                else:
                    yield from (_Cut(slice(b, b + 1), whole, whole, part) for b in range(len(q)))
            return
        for b, skip in enumerate(pad):
            queries, keys = slice(max(skip - (m - n), 0), None), slice(skip, None)
            for part in _parts(n - queries.start, m - skip, window, tile, most):
                yield _Cut(slice(b, b + 1), queries, keys, part)

    def of_queries(self, kv_heads: int, *tensors: Tensor) -> list[Tensor]:
        """(B, N, H, D) -> (B * tiles, Hkv, length * H/Hkv, D), as the kernel takes them. D may be missing."""
        tiles = (self.part.queries(t[self.rows, self.queries]).flatten(0, 1) for t in tensors)
        return [t.unflatten(2, (kv_heads, -1)).transpose(1, 2).flatten(2, 3) for t in tiles]

    def of_keys(self, *tensors: Tensor) -> list[Tensor]:
        """(B, M, Hkv, D) -> (B * tiles, Hkv, span, D), views."""
        return [self.part.keys(t[self.rows, self.keys]).flatten(0, 1).transpose(1, 2) for t in tensors]

    def write(self, heads: Tensor, into: Tensor) -> None:
        """The way back: (B * tiles, Hkv, length * H/Hkv, D) into rows (B, N, H, D). D may be missing."""
        target = self.part.queries(into[self.rows, self.queries])  # (B, tiles, length, H, D)
        grouped = target.unflatten(3, (heads.shape[1], -1)).transpose(2, 3)  # (B, tiles, Hkv, length, H/Hkv, D)
        grouped.copy_(heads.view(grouped.shape))

    def fold(self, heads: Tensor, into: Tensor) -> None:
        """Add the gradients of keys (B * tiles, Hkv, span, D) into rows (B, M, Hkv, D)."""
        rows = into[self.rows, self.keys]
        self.part.fold(heads.transpose(1, 2).unflatten(0, (rows.shape[0], self.part.tiles)), rows)


class _Masks:
    """The mask of each part: (1, 1 or Hkv, length * H/Hkv, span), the same for every tile.

    Masks without a bias depend on a few numbers only. They are cached, since a model needs the same few all the time.
    """

    known: ClassVar[dict[tuple[Any, ...], Tensor]] = {}

    def __init__(self, window: int, groups: int, bias: ScoreBias | None, dtype: torch.dtype) -> None:
        """groups: H / Hkv, the query heads that read one key/value head."""
        self.window, self.groups, self.bias = window, groups, bias
        # A mask with a bias is float32 at least: bfloat16 would round the bias.
        self.dtype = dtype if bias is None else torch.promote_types(dtype, torch.float32)
        shared = bias is None and not torch.compiler.is_compiling()
        self.made: dict[tuple[Any, ...], Tensor] = self.known if shared else {}

    def of(self, part: _Part) -> Tensor:
        key = (part.length, part.span, part.distance, self.window, self.groups, self.dtype)
        found = self.made.get(key)
        if found is None:
            distance = distances(part.length, part.span, part.distance, torch.device("cpu"))
            mask = additive_mask(distance, self.window, self.bias)  # (1 or H, length, span)
            if self.bias is None:
                mask = mask.expand(self.groups, -1, -1)
            mask = mask.unflatten(0, (-1, self.groups)).transpose(1, 2).flatten(1, 2)
            found = mask.unsqueeze(0).to(self.dtype)
            if len(self.made) >= 64:
                self.made.clear()
            if type(found) is Tensor:  # not a subclass that a tracer puts in a tensor's place
                self.made[key] = found
        return found


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
        empty = q.new_empty if pad is None else q.new_zeros
        kv_heads = k.shape[2]
        out, masks = empty(q.shape), _Masks(window, q.shape[2] // kv_heads, bias, q.dtype)
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        keep = any(ctx.needs_input_grad)
        log_sums = empty(q.shape[:3], dtype=wide) if keep else None
        for cut in _Cut.all(q, k, window, pad, FORWARD_TILE):
            o, log_sum = _flash(
                *cut.of_queries(kv_heads, q), *cut.of_keys(k, v), attn_mask=masks.of(cut.part), scale=scale
            )
            if more is not None and more_log is not None:
                other, other_log = cut.of_queries(kv_heads, more, more_log)
                total = torch.logaddexp(log_sum, other_log)
                other = other * (other_log - total).exp().unsqueeze(-1)
                o, log_sum = o * (log_sum - total).exp().unsqueeze(-1) + other, total
            cut.write(o, out)
            if log_sums is not None:
                cut.write(log_sum, log_sums)
        if keep:
            ctx.save_for_backward(q, k, v, more, more_log, out, log_sums)
            ctx.settings = (scale, window, bias, pad)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, more, more_log, out, log_sums = ctx.saved_tensors
        scale, window, bias, pad = ctx.settings
        dtype, wide = q.dtype, log_sums.dtype
        grad = dense(grads[0].to(wide))
        q, k, v, out = (t.to(wide) for t in (q, k, v, out))
        grad_q = (q.new_empty if pad is None else q.new_zeros)(q.shape)
        grad_k, grad_v = (t.new_zeros(t.shape) for t in (k, v))
        grad_more, grad_log = (None if t is None else t.new_zeros(t.shape, dtype=wide) for t in (more, more_log))
        kv_heads = k.shape[2]
        masks = _Masks(window, q.shape[2] // kv_heads, bias, wide)
        for cut in _Cut.all(q, k, window, pad, _backward_tile(window)):
            g, own, o, log_sum = cut.of_queries(kv_heads, grad, q, out, log_sums)
            dq, dk, dv = _flash_backward(
                g, own, *cut.of_keys(k, v), o, log_sum, 0.0, False, attn_mask=masks.of(cut.part), scale=scale
            )
            cut.write(dq, grad_q)
            cut.fold(dk, grad_k)
            cut.fold(dv, grad_v)
            if more is not None and grad_more is not None and grad_log is not None:
                other, other_log = cut.of_queries(kv_heads, more, more_log)
                share = (other_log - log_sum).exp().unsqueeze(-1) * g
                cut.write(share, grad_more)
                cut.write((share * (other - o)).sum(-1), grad_log)
        narrow = (grad_q.to(dtype), grad_k.to(dtype), grad_v.to(dtype))
        return *narrow, grad_more, grad_log, None, None, None, None
