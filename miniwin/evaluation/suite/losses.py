"""Bits per byte of long documents at several lengths, all on the same predicted tokens of each document.

A document is used from its start, S + 1 ids of it, where S is the longest length. At length L its predicted tokens are
cut into consecutive windows of L, as in streamed_loss.py. So a difference between two lengths comes from the context
alone. What varies from draw to draw is the document: intervals are over documents.

    nats[d, k] = sum of -log p over the tokens of document d at positions of bucket k in their window

Shapes: D documents, S predicted tokens of each, K buckets, B windows at once, N tokens of a window, P of the prefix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from miniwin.evaluation import intervals
from miniwin.evaluation.streamed_loss import sequence_loss
from miniwin.evaluation.suite.documents import Documents
from miniwin.evaluation.suite.part import Part, Planned, part
from miniwin.evaluation.suite.result import SuiteRow
from miniwin.evaluation.suite.rows import bits, plain, row
from miniwin.inference import Advance, InferenceModel, chunk_for, evaluating, rows_at_once

FIRST_BUCKET = 128  # positions 0 to 128, then doubling


def loss_parts(planned: Planned) -> Iterator[Part]:
    spec = planned.suite.loss
    if spec is None or (documents := Documents.of(planned)) is None:
        return
    lengths = list(planned.lengths(spec.lengths, "loss", "lengths"))
    longest = documents.longest([length for length, _ in lengths], spec.documents) or 0
    texts = documents.beginnings(longest, spec.documents) if longest else []
    setting = documents.setting(len(texts), longest)
    for length, at in lengths:
        if length <= longest:
            yield _part(planned, texts, length, setting)
        else:
            reason = documents.too_short(length) if not documents.count(length) else _too_few(documents, length)
            yield from planned.no_room(
                at, reason, "bits_per_byte", length, of="documents", unit="bits/byte", better="lower"
            )


def _too_few(documents: Documents, length: int) -> str:
    return (
        f"only {documents.count(length)} documents of the {documents.split} split have {length + 1:,} tokens, too few "
        f"for an interval (at least {intervals.FEWEST}); choose shorter lengths, or name more long texts with --data "
        "(data= in Python), or ask for fewer documents"
    )


def _part(planned: Planned, texts: Sequence[np.ndarray], length: int, setting: dict[str, Any]) -> Part:
    def run(advance: Advance) -> list[SuiteRow]:
        return loss_rows(length, planned.trained, document_losses(planned.model, texts, length, advance), setting)

    return part("bits_per_byte", length, len(texts) * (len(texts[0]) - 1), run)


@dataclass(frozen=True)
class DocumentLosses:
    """Nats and bytes of each document by bucket of positions. buckets: (start, end) of each."""

    nats: np.ndarray  # (D, K) float64
    bytes: np.ndarray  # (D, K) float64
    buckets: tuple[tuple[int, int], ...]


def document_losses(
    model: InferenceModel, documents: Sequence[np.ndarray], length: int, advance: Advance | None = None
) -> DocumentLosses:
    """The losses of documents, (S + 1,) ids each, in windows of `length`. Memory holds one batch of windows."""
    tokenizer = model.tokenizer
    assert tokenizer is not None, "the caller has a corpus in the model's tokens"
    tokens = len(documents[0]) - 1
    edges = buckets(min(length, tokens))
    starts = np.array([start for start, _ in edges])
    nats, sizes = np.zeros((len(documents), len(edges))), np.zeros((len(documents), len(edges)))
    prefix = np.array(tokenizer.prefix, dtype=np.int64)  # (P,)
    chunk = chunk_for(length)
    chunk += len(prefix) if chunk >= length else 0  # a window that fits into one pass fits with its prefix too
    with evaluating(model):
        for group in _batches(len(documents), tokens, length, rows_at_once(model, length, min(chunk, length))):
            size = group[0][2]
            windows = np.stack([documents[d][start : start + size + 1] for d, start, _ in group]).astype(np.int64)
            whole = np.concatenate([np.broadcast_to(prefix, (len(group), len(prefix))), windows], axis=1)
            losses = sequence_loss(model, torch.from_numpy(whole), chunk, advance)[:, len(prefix) :]  # (B, N)
            lengths = tokenizer.token_bytes(windows[:, 1:].ravel()).reshape(len(group), size)
            inside = starts[starts < size]
            for row, (document, _, _) in enumerate(group):
                nats[document, : len(inside)] += np.add.reduceat(losses[row].double().numpy(), inside)
                sizes[document, : len(inside)] += np.add.reduceat(lengths[row].astype(np.float64), inside)
    return DocumentLosses(nats, sizes, edges)


def _batches(documents: int, tokens: int, length: int, rows: int) -> Iterator[list[tuple[int, int, int]]]:
    """(document, first token, tokens) of windows that are read side by side: of one size, at most `rows`."""
    for size in sorted({min(length, tokens), tokens % length} - {0}, reverse=True):
        windows = [
            (document, start, size)
            for document in range(documents)
            for start in range(0, tokens, length)
            if min(length, tokens - start) == size
        ]
        for first in range(0, len(windows), rows):
            yield windows[first : first + rows]


def buckets(length: int) -> tuple[tuple[int, int], ...]:
    """0 to 128, 128 to 256, 256 to 512, ... up to the length."""
    edges = [0]
    while edges[-1] < length:
        edges.append(min(length, 2 * edges[-1] or FIRST_BUCKET))
    return tuple(pairwise(edges))


def loss_rows(length: int, trained: int | None, found: DocumentLosses, setting: dict[str, Any]) -> list[SuiteRow]:
    """Bits per byte, and how far documents differ in it."""
    nats, sizes = found.nats.sum(1), found.bytes.sum(1)  # (D,)
    samples: Any = {"nats": nats.tolist(), "bytes": sizes.tolist()}
    by_position = [
        {
            "start": start,
            "end": end,
            **plain(bits(found.nats[:, place], found.bytes[:, place])),
            "nats": found.nats[:, place].tolist(),
            "bytes": found.bytes[:, place].tolist(),
        }
        for place, (start, end) in enumerate(found.buckets)
        if found.bytes[:, place].sum() > 0
    ]
    overall = row(
        "bits_per_byte",
        length,
        trained,
        bits(nats, sizes),
        of="documents",
        unit="bits/byte",
        better="lower",
        setting=setting,
        samples=samples,
        detail={"buckets": by_position},
    )
    each = nats / sizes / math.log(2)
    spread = row(
        "bits_per_byte_spread",
        length,
        trained,
        intervals.spread(each),
        of="documents",
        unit="bits/byte",
        setting=setting,
        samples=samples,
        detail={"quartiles": np.quantile(each, [0, 0.25, 0.5, 0.75, 1]).tolist()},
    )
    return [overall, spread]
