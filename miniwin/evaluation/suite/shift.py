"""Shift sensitivity: how far the losses of the same tokens change when filler stands in front of the text.

The filler is line ends, `shift` tokens of them. The text is a document's first N + 1 tokens, and its last N - N // 2
predicted tokens count: those at the start have only filler before them, and may well change. With l_i the loss of token
i, l_i' its loss behind the filler, and b_i its bytes,

    shift_change = sum |l_i' - l_i| / sum b_i        in bits per byte; 0 for a model that reads only what is near
    signed       = sum (l_i' - l_i) / sum b_i        above 0 where filler hurts

The definition is our own. A model whose positions mean nothing over long distances should not care how much filler
there is. `miniwin explain --shift` asks the same of one layer's outputs.

Shapes: B documents at once, N predicted tokens, P of the prefix, F of filler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from miniwin.evaluation.streamed_loss import sequence_loss
from miniwin.evaluation.suite.documents import Documents
from miniwin.evaluation.suite.part import Part, Planned, part
from miniwin.evaluation.suite.result import SuiteRow
from miniwin.evaluation.suite.rows import bits, plain, row
from miniwin.inference import Advance, InferenceModel, chunk_for, evaluating, rows_at_once
from miniwin.tokenizer import Tokenizer

MEASURE = "shift_change"
FILLER = "\n"


def shift_parts(planned: Planned) -> Iterator[Part]:
    """One part a shift. The length of its row is the shift."""
    spec = planned.suite.shift
    if spec is None or (tokens := planned.tokens(spec.length, ("shift", "length"))) is None:
        return
    if (documents := Documents.of(planned)) is None:
        return
    texts = documents.beginnings(tokens, spec.documents)
    setting = {**documents.setting(len(texts), tokens), "filler": "line ends"}
    for shift, _ in planned.lengths(spec.shifts, "shift", "shifts"):
        if texts:
            yield _part(planned, texts, shift, setting)
        else:
            at, reason = ("shift", "length"), documents.too_short(tokens)
            yield from planned.no_room(at, reason, MEASURE, shift, of="documents", unit="bits/byte", better="lower")


def _part(planned: Planned, texts: Sequence[np.ndarray], shift: int, setting: dict[str, Any]) -> Part:
    def run(advance: Advance) -> list[SuiteRow]:
        return [shift_row(shift, planned.trained, shift_change(planned.model, texts, shift, advance), setting)]

    return part(MEASURE, shift, len(texts) * (2 * len(texts[0]) + shift), run)


def shift_row(shift: int, trained: int | None, found: ShiftChange, setting: dict[str, Any]) -> SuiteRow:
    return row(
        MEASURE,
        shift,
        trained,
        bits(found.change, found.bytes),
        of="documents",
        unit="bits/byte",
        better="lower",
        setting=setting,
        samples={"nats": found.change.tolist(), "signed": found.signed.tolist(), "bytes": found.bytes.tolist()},
        detail={
            "signed": plain(bits(found.signed, found.bytes)),
            "without_filler": plain(bits(found.before, found.bytes)),
        },
    )


@dataclass(frozen=True)
class ShiftChange:
    """Of each document, (D,): nats that changed, either way and with their sign; nats without filler; and bytes."""

    change: np.ndarray
    signed: np.ndarray
    before: np.ndarray
    bytes: np.ndarray


def shift_change(
    model: InferenceModel, documents: Sequence[np.ndarray], shift: int, advance: Advance | None = None
) -> ShiftChange:
    """documents: (N + 1,) ids each."""
    tokenizer = model.tokenizer
    assert tokenizer is not None, "the caller has a corpus in the model's tokens"
    tokens = len(documents[0]) - 1
    first = tokens // 2
    prefix, filler = np.array(tokenizer.prefix, dtype=np.int64), filler_ids(tokenizer, shift)
    columns: list[np.ndarray] = []
    whole = len(prefix) + shift + tokens
    rows = rows_at_once(model, whole, min(chunk_for(whole), whole))
    with evaluating(model):
        for start in range(0, len(documents), rows):
            texts = np.stack(documents[start : start + rows]).astype(np.int64)  # (B, N + 1)
            both = []
            for front in (prefix, np.concatenate((prefix, filler))):
                ids = np.concatenate((np.broadcast_to(front, (len(texts), len(front))), texts), axis=1)
                losses = sequence_loss(model, torch.from_numpy(ids), None, advance)
                both.append(losses[:, len(front) + first :].double().numpy())  # (B, N - N // 2)
            counted = texts[:, 1 + first :]
            sizes = tokenizer.token_bytes(counted.ravel()).reshape(counted.shape)
            change = both[1] - both[0]
            columns.append(np.stack((np.abs(change).sum(1), change.sum(1), both[0].sum(1), sizes.sum(1))))  # (4, B)
    return ShiftChange(*np.concatenate(columns, axis=1))


def filler_ids(tokenizer: Tokenizer, count: int) -> np.ndarray:
    """(count,) ids of line ends."""
    return np.resize(np.array(tokenizer.encode(FILLER), dtype=np.int64), count)
