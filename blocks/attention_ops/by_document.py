"""Rows of several documents, taken apart: each document is a call of its own, answered by whichever backend suits it.

No mask is made and no pair of tokens from two documents is ever scored, so that the cost is that of the documents. They
are cut out of one long row by a single split, whose gradient is a single join: the gradient of as many slices would be
as many rows long.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from miniwin.blocks import attention_ops
from miniwin.blocks.attention_ops.call import AttentionCall

NAME = "by_document"
# The rest of a call's features are left to those who answer for the documents.
CANNOT = frozenset({"pad", "kept"})


def declines(call: AttentionCall) -> str | None:
    if call.documents is None:
        return "it is for rows of several documents, and this call tells of none"
    if reason := call.beyond(call.features - CANNOT):
        return reason
    return None if call.offset == 0 else "it takes whole rows, without a cache"


def run(call: AttentionCall) -> Tensor:
    assert call.documents is not None
    batch, n = call.q.shape[:2]
    lengths = call.documents.lengths
    if len(lengths) == batch:  # one in each row
        with attention_ops.use_backend(None):
            return attention_ops.attend(replace(call, documents=None))
    parts = [_pieces(rows, lengths) for rows in (call.q, call.k, call.v)]
    gates = [None] * len(lengths) if call.log_gates is None else _pieces(call.log_gates, lengths)
    with attention_ops.use_backend(None):
        outs = [
            attention_ops.attend(replace(call, q=q, k=k, v=v, log_gates=gate, documents=None))
            for q, k, v, gate in zip(*parts, gates, strict=True)
        ]
    return torch.cat(outs, 1).unflatten(1, (batch, n)).squeeze(0)  # (1, B * N, H, Dv) -> (B, N, H, Dv)


def _pieces(rows: Tensor, lengths: list[int]) -> tuple[Tensor, ...]:
    """(B, N, ...) -> one (1, length, ...) for each document."""
    return rows.flatten(0, 1).unsqueeze(0).split(lengths, 1)
