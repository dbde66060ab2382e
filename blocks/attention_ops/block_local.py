"""Block-local attention (Llama 4's chunks): a query sees the earlier keys of its own chunk of C tokens, and no others.

The cost is linear in length, and there is no mask. Whole chunks are folded into the batch, and each is a plain causal
attention. The chunk in which a call begins and the chunk in which it ends are computed by themselves.

    positions   ... | begun, on a warm cache | whole | whole | ... | not finished yet |

Padded rows have chunks that begin elsewhere, so rows take turns. Padding is cut off first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from miniwin.blocks.attention_ops import cpu_chunked, sdpa, tiled
from miniwin.blocks.attention_ops.call import AttentionCall, one_query

NAME = "block_local"
HONOURS = frozenset({"chunk", "pad", "value_dim"})


def declines(call: AttentionCall) -> str | None:
    if call.chunk is None:
        return "it is for chunks"
    if any(t is not None and t.is_meta for t in (call.start, call.pad)):
        return "it must know where the chunks begin; on the meta device nothing is known"
    return call.beyond(HONOURS)


def ill_suited(call: AttentionCall) -> str | None:
    return one_query(call)


def run(call: AttentionCall) -> Tensor:
    rows = call.q.shape[0]
    starts = [0] if call.start is None else call.start.tolist()
    skips = [0] if call.pad is None else call.pad.tolist()
    if len(starts) == len(skips) == 1:
        return _attend(call, slice(None), skips[0], starts[0])
    starts, skips = (values * rows if len(values) == 1 else values for values in (starts, skips))
    return torch.cat([_attend(call, slice(b, b + 1), skips[b], starts[b]) for b in range(rows)])


def _attend(call: AttentionCall, rows: slice, skip: int, start: int) -> Tensor:
    """Attend rows whose first `skip` keys are padding, and whose key 0 stands at position `start`: (b, N, H, Dv)."""
    assert call.chunk is not None
    n, offset, size = call.q.shape[1], call.offset, call.chunk
    padding = min(n, max(skip - offset, 0))  # queries that are padding; their answers are never read
    at = start + offset + padding  # position of the first token
    first = min(n, padding + -at % size)  # the first query that begins a chunk
    last = n - (n - first) % size  # the query that begins the unfinished chunk
    key = max(offset + padding - at % size, skip)  # the first key of the chunk that the first token is in

    def piece(begin: int, end: int, key: int) -> Tensor:
        k, v = (t[rows, key : offset + end] for t in (call.k, call.v))
        return _causal(call.q[rows, begin:end], k, v, call.scale)

    parts = []
    if first > padding:
        parts.append(piece(padding, first, key))
    if last > first:
        q, k, v = (
            t[rows, skipped + first : skipped + last].unflatten(1, (-1, size)).flatten(0, 1)  # (B * chunks, C, ...)
            for t, skipped in ((call.q, 0), (call.k, offset), (call.v, offset))
        )
        chunks = (last - first) // size
        parts.append(_causal(q, k, v, call.scale).unflatten(0, (-1, chunks)).flatten(1, 2))
    if n > last:
        parts.append(piece(last, n, offset + last))
    out = torch.cat(parts, 1) if parts else call.v.new_zeros(len(call.q[rows]), 0, call.q.shape[2], call.v.shape[3])
    return pad(out, (0, 0, 0, 0, padding, 0)) if padding else out


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Global causal attention, by a backend that needs no mask for it."""
    call = AttentionCall(q, k, v, scale)
    if call.offset == 0 or q.shape[1] == 1:
        return sdpa.run(call)
    return (cpu_chunked if cpu_chunked.declines(call) is None else tiled).run(call)
