"""Compiled FlexAttention (arXiv 2412.05496): one fused kernel for any visible keys and any change of scores.

`mask_mod` says which keys a query sees, `score_mod` how its scores change; both are functions of indices:

    window, chunk, documents, padding   mask_mod. Blocks of keys that no query of a block can reach are skipped; they
                                        are found from the indices of blocks, never from an N by M mask
    sink tokens, sinks                  further keys behind the row's own; a sink's score is replaced by its logit
    soft-cap, score bias                score_mod; the bias is a table by distance, through which gradients flow

torch compiles the kernel on first use, again for other features, and a few times until it treats lengths as symbols.
This takes seconds, so the backend is for GPUs. On a CPU, where it has no backward, it runs only if asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention_ops import sdpa
from miniwin.blocks.attention_ops.call import AttentionCall, one_query

NAME = "flex"
HONOURS = frozenset({"window", "chunk", "documents", "pad", "kept", "sinks", "softcap", "bias", "value_dim"})
BLOCK = 128  # queries and keys of a block of the mask
# torch.compile's `dynamic`. On CUDA lengths become symbols once a second length is seen (None). Kernels for a CPU do
# not compile with symbols (torch 2.13), so each length is compiled by itself.
DYNAMIC = {"cuda": None, "cpu": False}
NARROWEST = 16  # the fewest channels of a head on CUDA: Triton's products take no fewer

Seen = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (batch, head, query, key) -> bool, of scalars
Scores = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # (score, batch, head, query, key) -> score


def declines(call: AttentionCall) -> str | None:
    device = call.q.device.type
    if device not in ("cuda", "cpu"):
        return f"it is compiled for CUDA or a CPU, not for {device}"
    reason = call.beyond(HONOURS)
    if reason is not None:
        return reason
    if device == "cpu" and torch.is_grad_enabled() and _asks_for_gradients(call):
        return "it has no backward on a CPU"
    if device == "cuda" and call.q.dtype == torch.float64:
        return "its kernels do not take float64"
    if device == "cuda" and min(call.q.shape[-1], call.v.shape[-1]) < NARROWEST:
        return f"its kernels take head dims from {NARROWEST} on, not {min(call.q.shape[-1], call.v.shape[-1])}"
    if device == "cuda" and not _has_triton():
        return "triton, which compiles it, is not installed"
    return None


def ill_suited(call: AttentionCall) -> str | None:
    if reason := one_query(call):
        return reason
    if call.q.device.type == "cpu":
        return "on a CPU it must be asked for: it takes seconds to compile"
    if sdpa.declines(call) is None and sdpa.mask_size(call) == 0:
        return "sdpa needs no mask for it"
    return None


def _asks_for_gradients(call: AttentionCall) -> bool:
    given = [call.q, call.k, call.v, call.sinks]
    given += [] if call.kept is None else [call.kept.k, call.kept.v]
    given += [] if call.bias is None else [call.bias(torch.zeros(1, 1, dtype=torch.int64))]
    return any(t is not None and t.requires_grad for t in given)


@cache
def _has_triton() -> bool:
    from importlib.util import find_spec

    return find_spec("triton") is not None


@cache
def _compiled(device: str, kind: tuple[Any, ...]) -> Any:
    """flex_attention, compiled for calls of one kind, which differ in lengths only.

    Each kind has a function of its own: torch recompiles a function at most 8 times (recompile_limit). After that it
    runs the function uncompiled, which makes a matrix of all scores.
    """
    from torch.nn.attention import flex_attention as torchs

    def attended(*given: Any, **named: Any) -> Any:
        return torchs.flex_attention(*given, **named)

    attended.__code__ = attended.__code__.replace()  # a copy: torch counts by code object, which all kinds would share
    return torch.compile(attended, dynamic=DYNAMIC[device])


def kind(call: AttentionCall) -> tuple[Any, ...]:
    """A key, equal for calls that share a compiled function: everything except lengths and the number of rows.

    Of these it has whether they are 0, 1 or within one block, for which torch makes no symbols.
    """
    (rows, n), m = call.q.shape[:2], call.k.shape[1] + further(call)
    shapes = call.q.shape[2:], call.k.shape[2:], call.v.shape[2:]
    fixed = call.window, call.chunk, call.scale, further(call)
    few = min(rows, 2), min(n, 2), min(call.offset, 2), n <= BLOCK, m <= BLOCK
    return call.features, call.q.dtype, shapes, fixed, few, torch.is_grad_enabled()


def run(call: AttentionCall) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (call.q, *_with_further(call)))  # (B, H, N, D), (B, Hkv, M + further, D)
    if not torch.is_grad_enabled():
        q, k, v = q.detach(), k.detach(), v.detach()  # on a CPU flex refuses tensors that require a gradient
    out: Tensor = _compiled(q.device.type, kind(call))(
        q,
        k,
        v,
        score_mod=score_mod(call),
        block_mask=block_mask(call),
        scale=call.scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2)


def further(call: AttentionCall) -> int:
    """The number of keys behind the row's own: sink tokens, then the sink."""
    return (0 if call.kept is None else call.kept.k.shape[1]) + (call.sinks is not None)


def _with_further(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Keys and values with the further ones behind them: (B, M + further, Hkv, D) each."""
    keys, values = [call.k], [call.v]
    if call.kept is not None:
        keys.append(call.kept.k)
        values.append(call.kept.v)
    if call.sinks is not None:
        keys.append(torch.zeros_like(call.k[:, :1]))
        values.append(torch.zeros_like(call.v[:, :1]))
    return (torch.cat(keys, 1), torch.cat(values, 1)) if len(keys) > 1 else (call.k, call.v)


def mask_mod(call: AttentionCall) -> Seen:
    """Which keys a query sees, the further ones included."""
    batch, m, offset = call.q.shape[0], call.k.shape[1], call.offset
    reach = m if call.window is None else call.window
    conditions: list[Seen] = [lambda b, h, i, j: (i + offset >= j) & (i + offset - j < reach)]
    if call.chunk is not None:
        chunks = (call.row_index() // call.chunk).expand(batch, m)
        conditions.append(lambda b, h, i, j: chunks[b, i + offset] == chunks[b, j])
    if call.documents is not None:
        numbers = call.documents.numbers.expand(batch, m)
        conditions.append(lambda b, h, i, j: numbers[b, i + offset] == numbers[b, j])
    if call.pad is not None:
        pad = call.pad.expand(batch)
        conditions.append(lambda b, h, i, j: (j >= pad[b]) | (i + offset == j))  # a padding token sees its own key
    if not further(call):
        return _all(conditions)

    own, kept = _all(conditions), 0 if call.kept is None else call.kept.k.shape[1]
    seen = None if call.kept is None else call.kept.seen.expand(batch, -1, -1)

    def with_further(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        behind = j >= m + kept  # the sink, which every query sees
        if seen is not None:
            behind = behind | ((j >= m) & seen[b, i, (j - m).clamp(0, kept - 1)])
        return behind | ((j < m) & own(b, h, i, j.clamp(max=m - 1)))

    return with_further


def _all(conditions: list[Seen]) -> Seen:
    def every(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        found = conditions[0](b, h, i, j)
        for condition in conditions[1:]:
            found = found & condition(b, h, i, j)
        return found

    return every


def score_mod(call: AttentionCall) -> Scores | None:
    """The change of a scaled score; None if scores do not change."""
    if call.softcap is None and call.bias is None and call.sinks is None:
        return None
    m, offset, sinks = call.k.shape[1], call.offset, call.sinks
    last = m + further(call) - 1
    # A tensor: the compiler would turn a number that changes between calls into a symbol, and cannot trace one here.
    cap = None if call.softcap is None else torch.tensor(call.softcap, dtype=torch.float32, device=call.q.device)
    table = None
    if call.bias is not None:
        by_distance = call.bias(torch.arange(m, device=call.q.device).unsqueeze(0))  # (H or 1, 1, M)
        table = by_distance[:, 0].expand(call.q.shape[2], m)

    def changed(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        if table is not None:
            bias = table[h, (i + offset - j).clamp(0, m - 1)]
            score = torch.where(j < m, score + bias, score)
        if sinks is not None:
            score = torch.where(j == last, sinks[h].to(score.dtype), score)
        return score

    return changed


def block_mask(call: AttentionCall) -> Any:
    """The mask for the kernel: for each block of queries, the blocks of keys to read.

    Blocks of keys that no query reaches are left out. Blocks that all queries see as a whole are listed apart, since
    the kernel need not mask in them. They are known if distances alone decide what is visible.
    """
    from torch.nn.attention.flex_attention import BlockMask

    n, m, behind = call.q.shape[1], call.k.shape[1], further(call)
    reach = min(m, call.window or call.chunk or m)
    device = call.q.device
    first = torch.arange(0, n, BLOCK, device=device).unsqueeze(1)
    key = torch.arange(0, m + behind, BLOCK, device=device)
    nearest = call.offset + first - (key + BLOCK - 1)  # distances in a block of queries and keys: from this ...
    farthest = call.offset + (first + BLOCK - 1).clamp(max=n - 1) - key  # ... to this
    touched = (farthest >= 0) & (nearest < reach)
    if behind:
        touched = touched | (key + BLOCK > m)
    whole = (nearest >= 0) & (farthest < reach) & (key + BLOCK <= m) & (first + BLOCK <= n)
    if not call.features <= {"window", "softcap", "bias", "kept", "sinks", "value_dim"}:
        whole = torch.zeros_like(whole)
    (partly, part), (wholly, full) = _ordered(touched & ~whole), _ordered(whole)
    return BlockMask.from_kv_blocks(
        partly, part, wholly, full, BLOCK_SIZE=BLOCK, mask_mod=mask_mod(call), seq_lengths=(n, m + behind)
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of keys, (query blocks, key blocks) bool, as the kernel takes them: their number, their indices first."""
    found = blocks[None, None].int()
    order = torch.argsort(found, dim=-1, descending=True, stable=True)
    return found.sum(-1).int(), order.int()
