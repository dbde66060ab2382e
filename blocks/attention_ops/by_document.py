"""Rows of several documents, taken apart: each document is a call of its own, answered by the backend that suits it.

No mask is made, and no pair of tokens from two documents is scored, so the cost is the sum over documents. One `split`
cuts all documents out of one long row, since its gradient is a single join. With a slice for each document, each
gradient would be as long as the whole row.

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
# All other features are left to the backends that answer for single documents.
CANNOT = frozenset({"pad", "kept"})


def declines(call: AttentionCall) -> str | None:
    if call.documents is None:
        return "it is for rows of several documents, and this call has none"
    if reason := call.beyond(call.features - CANNOT):
        return reason
    return None if call.offset == 0 else "it takes whole rows, without a cache"


def ill_suited(call: AttentionCall) -> str | None:
    return None


def split(call: AttentionCall) -> list[AttentionCall]:
    """One call for each document, (1, length, ...); a single call for all rows if each row is one document."""
    assert call.documents is not None
    lengths = call.documents.lengths
    if len(lengths) == len(call.q):
        return [replace(call, documents=None)]
    parts = [_pieces(rows, lengths) for rows in (call.q, call.k, call.v)]  # (B, N, ...) -> (1, length, ...) each
    gates = [None] * len(lengths) if call.log_gates is None else _pieces(call.log_gates, lengths)
    return [
        replace(call, q=q, k=k, v=v, log_gates=gate, documents=None)
        for q, k, v, gate in zip(*parts, gates, strict=True)
    ]


def join(call: AttentionCall, answers: Sequence[Tensor]) -> Tensor:
    """Put the answers to `split(call)`, in its order, together as the answer to `call`: (B, N, H, Dv)."""
    if len(answers) == 1:
        return answers[0]
    return torch.cat(list(answers), 1).unflatten(1, call.q.shape[:2]).squeeze(0)  # (1, B * N, H, Dv) -> (B, N, H, Dv)


def _pieces(rows: Tensor, lengths: list[int]) -> tuple[Tensor, ...]:
    """(B, N, ...) -> one (1, length, ...) for each document."""
    return rows.flatten(0, 1).unsqueeze(0).split(lengths, 1)
