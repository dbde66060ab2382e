"""Rows of several documents, taken apart: each document is a call of its own, answered by whichever backend suits it.

No mask is made and no pair of tokens from two documents is ever scored, so that the cost is that of the documents. They
are cut out of one long row by a single split, whose gradient is a single join: the gradient of as many slices would be
as many rows long.

Unlike the other backends this one has no `run`: the dispatch answers the calls of `split`, and `join` puts the answers
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

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


def ill_suited(call: AttentionCall) -> str | None:
    return None


def split(call: AttentionCall) -> list[AttentionCall]:
    """A call for each document, (1, length, ...); a single call for all rows where each row is one document."""
    assert call.documents is not None
    lengths = call.documents.lengths
    if len(lengths) == len(call.q):
        return [replace(call, documents=None)]
    parts = [_pieces(rows, lengths) for rows in (call.q, call.k, call.v)]
    gates = [None] * len(lengths) if call.log_gates is None else _pieces(call.log_gates, lengths)
    return [
        replace(call, q=q, k=k, v=v, log_gates=gate, documents=None)
        for q, k, v, gate in zip(*parts, gates, strict=True)
    ]


def join(call: AttentionCall, answers: Sequence[Tensor]) -> Tensor:
    """The answers to `split(call)`, in its order, as the answer to the call: (B, N, H, Dv)."""
    if len(answers) == 1:
        return answers[0]
    return torch.cat(list(answers), 1).unflatten(1, call.q.shape[:2]).squeeze(0)  # (1, B * N, H, Dv) -> (B, N, H, Dv)


def _pieces(rows: Tensor, lengths: list[int]) -> tuple[Tensor, ...]:
    """(B, N, ...) -> one (1, length, ...) for each document."""
    return rows.flatten(0, 1).unsqueeze(0).split(lengths, 1)
