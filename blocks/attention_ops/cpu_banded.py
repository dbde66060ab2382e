"""Sliding-window attention on a CPU, linear in length.

The sequence is folded into tiles of T queries. A tile sees its own T keys and the P >= W - 1 before it, so the keys
of all tiles are one *overlapping strided view* of k (no copy), and one call of torch's CPU flash kernel with one small
mask (T, P + T) shared by all tiles does the work. Three parts make up a row:

    head   the first queries, whose tile would begin before the first key: one dense masked call, about W by W
    body   whole tiles, as above
    tail   fewer than T queries that are left over: one dense masked call

Grouped-query heads are the kernel's. Padding is cut off before, so that it costs nothing. The backward calls the flash
backward on the same parts and folds the overlapping key and value gradients back; bfloat16 is upcast there, since
torch's bfloat16 CPU backward is slower than float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention_ops.call import AttentionCall, additive_mask, distances
from miniwin.blocks.positions.base import ScoreBias

NAME = "cpu_banded"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on a CPU, not on {call.q.device.type}"
    if call.window is None:
        return "it is for a window; a global layer sees every key"
    if call.bias is not None and call.bias(torch.zeros(1, 1, dtype=torch.int64)).requires_grad:
        return "its backward gives no gradient to a learned score bias"
    return None


def run(call: AttentionCall) -> Tensor:
    pad = None if call.pad is None else call.pad.tolist()
    assert call.window is not None
    return _Banded.apply(call.q, call.k, call.v, call.scale, call.window, call.bias, pad)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Part:
    """Queries first .. first + tiles * length of one row, against keys from `key` on: `span` of them per tile."""

    first: int
    length: int
    tiles: int
    key: int
    span: int

    def queries(self, row: Tensor) -> Tensor:
        """row (N, H, D) -> (tiles, H, length, D), a view."""
        return row[self.first : self.first + self.tiles * self.length].unflatten(0, (self.tiles, -1)).transpose(1, 2)

    def keys(self, row: Tensor) -> Tensor:
        """row (M, Hkv, D) -> (tiles, Hkv, span, D), a view in which neighbouring tiles overlap."""
        step, head, channel = row.stride()
        size = (self.tiles, row.shape[1], self.span, row.shape[2])
        return row.as_strided(
            size, (self.length * step, head, step, channel), row.storage_offset() + self.key * step
        )

    def fold(self, grad: Tensor, row: Tensor) -> None:
        """Add the tiles' key gradients (tiles, Hkv, span, D) into row (M, Hkv, D), overlaps summed."""
        grad = grad.transpose(1, 2)  # (tiles, span, Hkv, D)
        for piece in range(0, self.span, self.length):
            width = min(self.length, self.span - piece)
            begin = self.key + piece
            if width == self.length:
                target = row[begin : begin + self.tiles * width].unflatten(0, (self.tiles, width))
                target += grad[:, piece : piece + width]
            else:  # a dense part, whose span need not be a multiple of its length
                row[begin : begin + width] += grad[0, piece : piece + width]

    def mask(self, offset: int, window: int, bias: ScoreBias | None, dtype: torch.dtype) -> Tensor:
        """(1, 1 or H, length, span): the same for every tile."""
        distance = distances(self.length, self.span, offset + self.first - self.key, torch.device("cpu"))
        mask = additive_mask(distance, window, bias).unsqueeze(0)
        return mask if bias is not None else mask.to(dtype)


def _parts(n: int, m: int, window: int) -> list[_Part]:
    """Cut a row of n queries and m keys into head, body and tail."""
    offset = m - n
    tile = 32 if window <= 128 else 64
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


def _rows(q: Tensor, k: Tensor, pad: list[int] | None) -> Iterator[tuple[int, slice, slice]]:
    """Each batch row, with its real queries and keys."""
    offset = k.shape[1] - q.shape[1]
    for b in range(q.shape[0]):
        skip = 0 if pad is None else pad[b]
        yield b, slice(max(skip - offset, 0), None), slice(skip, None)


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int,
        bias: ScoreBias | None,
        pad: list[int] | None,
    ) -> Tensor:
        out = torch.zeros_like(q) if pad is not None else torch.empty_like(q)
        sums: list[Tensor] = []
        masks: dict[tuple[_Part, int], Tensor] = {}
        for b, queries, keys in _rows(q, k, pad):
            q_row, k_row, v_row, o_row = q[b, queries], k[b, keys], v[b, keys], out[b, queries]
            offset = len(k_row) - len(q_row)
            for part in _parts(len(q_row), len(k_row), window):
                if (part, offset) not in masks:
                    masks[part, offset] = part.mask(offset, window, bias, q.dtype)
                mask = masks[part, offset]
                o, log_sum = _flash(
                    part.queries(q_row), part.keys(k_row), part.keys(v_row), attn_mask=mask, scale=scale
                )
                part.queries(o_row).copy_(o)
                sums.append(log_sum)
        ctx.save_for_backward(q, k, v, out, *sums)
        ctx.settings = (scale, window, bias, pad, masks)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *sums = ctx.saved_tensors
        scale, window, _, pad, masks = ctx.settings
        grad, dtype = grads[0].float(), q.dtype
        q, k, v, out = q.float(), k.float(), v.float(), out.float()
        grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        log_sums = iter(sums)
        for b, queries, keys in _rows(q, k, pad):
            q_row, k_row, v_row = q[b, queries], k[b, keys], v[b, keys]
            offset = len(k_row) - len(q_row)
            for part in _parts(len(q_row), len(k_row), window):
                dq, dk, dv = _flash_backward(
                    part.queries(grad[b, queries]),
                    part.queries(q_row),
                    part.keys(k_row),
                    part.keys(v_row),
                    part.queries(out[b, queries]),
                    next(log_sums),
                    0.0,
                    False,
                    attn_mask=masks[part, offset].float(),
                    scale=scale,
                )
                part.queries(grad_q[b, queries]).copy_(dq)
                part.fold(dk, grad_k[b, keys])
                part.fold(dv, grad_v[b, keys])
        return grad_q.to(dtype), grad_k.to(dtype), grad_v.to(dtype), None, None, None, None
