"""The loss of long sequences in bounded memory: tokens go through the caches chunk by chunk.

    nats[i] = -log p(ids[i + 1] | ids[0 .. i])

A window of N predicted tokens needs N + 1 ids: its first id is given, never predicted. Memory holds the
caches and the activations of one chunk, whatever N is. The result is that of one long forward pass, to
float32 rounding.

Every length is measured on the same predicted tokens: the span ids[1 .. S] of the split, cut into consecutive
windows of that length. So a difference between two lengths comes from the context alone, not from the text.
The price is that windows start anywhere in a document, as they do in training. If a length does not divide S,
the last window is shorter. A model whose texts begin with a prefix, such as <bos>, gets the prefix before each
window. The prefix is not counted.

Shapes: B windows at once, N tokens per window, P tokens of the prefix, C chunk, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from miniwin.blocks import Cache
from miniwin.inference import Advance, InferenceModel, chunk_for, evaluating, in_chunks, rows_at_once
from miniwin.specs import UserError

if TYPE_CHECKING:
    from miniwin.data.corpus import Corpus, Text

DEFAULT_TOKENS = 65536  # the span, unless a length asks for more


def sequence_loss(
    model: InferenceModel, ids: Tensor, chunk: int | None = None, advance: Advance | None = None
) -> Tensor:
    """Nats of each predicted token: ids (B, N + 1) -> (B, N) float32 on the CPU."""
    inputs, targets = ids[:, :-1].to(model.device), ids[:, 1:].to(model.device)  # (B, N)
    rows, length = inputs.shape
    chunk = chunk_for(length) if chunk is None else chunk
    nats = torch.empty(rows, length, dtype=torch.float32, device="cpu")
    cache = model.new_cache(rows) if length > chunk else None
    if isinstance(cache, Cache):
        cache.reserve(length)  # a cache that grows is in memory twice while it is copied
    for part, logits in in_chunks(model, inputs, cache, chunk):  # (B, C, V)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets[:, part].flatten(), reduction="none")  # (B * C,)
        nats[:, part] = loss.view(rows, -1).cpu()  # (B, C)
        if advance is not None:
            advance(rows * logits.shape[1])
    return nats


@dataclass(frozen=True)
class PositionLosses:
    """Nats and bytes of the predicted tokens, summed over the windows, by position in the window."""

    nats: np.ndarray  # (N,) float64
    bytes: np.ndarray  # (N,) float64

    @property
    def nats_per_byte(self) -> float:
        return float(self.nats.sum() / self.bytes.sum())

    def bits_per_byte(self, start: int, end: int) -> float:
        """Mean over the positions start .. end - 1."""
        return float(self.nats[start:end].sum() / self.bytes[start:end].sum() / math.log(2))


def span(valid: np.ndarray, longest: int, tokens: int | None) -> int:
    """How many tokens of the split to predict: `tokens`, or a default that holds the longest length.

    Raises:
        UserError: `tokens` is less than one window, or the split has too few tokens.
    """
    available = len(valid) - 1
    if longest < 1:
        raise UserError(f"length: expected at least 1 token, got {longest}")
    if tokens is not None and tokens < longest:
        raise UserError(f"tokens: {tokens} are fewer than one window of {longest}; ask for at least {longest}")
    needed = longest if tokens is None else tokens
    if needed > available:
        raise UserError(
            f"the validation split has {max(available, 0)} tokens to predict, and {needed} are needed for "
            f"length {longest}: evaluate at shorter lengths, ask for fewer tokens, or add validation data"
        )
    return needed if tokens is not None else min(available, max(DEFAULT_TOKENS, longest))


def span_of(texts: Sequence[Text], longest: int, tokens: int | None) -> int:
    """How many tokens of each text to predict: as `span` says of a single one, and of several the fewest.

    Raises:
        UserError: as `span` does, and where a mixture has no text.
    """
    if not texts:
        raise UserError("there is no text to measure bits per byte on: the data are examples of tasks")
    return min(span(text.ids, longest, tokens) for text in texts)


def mixed(losses: Sequence[PositionLosses], texts: Sequence[Text]) -> PositionLosses:
    """The losses of one text that has of each of `texts` its weight's share of the tokens.

    losses: of each text, over equally many tokens, in windows of one length.
    """
    return PositionLosses(
        np.sum([text.weight * loss.nats for text, loss in zip(texts, losses, strict=True)], axis=0),
        np.sum([text.weight * loss.bytes for text, loss in zip(texts, losses, strict=True)], axis=0),
    )


def position_losses(
    model: InferenceModel,
    valid: np.ndarray,
    length: int,
    tokens: int,
    chunk: int | None = None,
    advance: Advance | None = None,
    counted: np.ndarray | None = None,
) -> PositionLosses:
    """Losses by position for the first `tokens` predicted tokens of `valid`, in windows of `length`.

    counted: 1 for the tokens of `valid` whose loss and bytes count; None where all do.

    Raises:
        UserError: the model has no tokenizer, the chunk is below 1, or none of these tokens counts.
    """
    if model.tokenizer is None:
        raise UserError(f"{model.ref} has no tokenizer, so its loss per byte is not defined")
    if counted is not None and not np.any(counted[1 : tokens + 1]):
        raise UserError(f"there is no answer in the first {tokens:,} tokens of the chats: measure more tokens")
    length = min(length, tokens)
    chunk = chunk_for(length) if chunk is None else chunk
    if chunk < 1:
        raise UserError(f"chunk: expected at least 1 token, got {chunk}")
    nats, sizes = np.zeros(length), np.zeros(length)  # (N,), (N,): sums over the windows of nats and of bytes
    prefix = np.array(model.tokenizer.prefix, dtype=np.int64)  # (P,)
    chunk += len(prefix) if chunk >= length else 0  # a window that fits into one pass fits with its prefix too
    rows = rows_at_once(model, length, min(chunk, length))
    whole = tokens // length
    # (where the first window starts, how many windows, their length)
    batches = [(first * length, min(rows, whole - first), length) for first in range(0, whole, rows)]
    if tokens % length:
        batches.append((whole * length, 1, tokens % length))
    with evaluating(model):
        for start, count, size in batches:
            ids = np.asarray(valid[start : start + count * size + 1]).astype(np.int64)
            windows = np.lib.stride_tricks.sliding_window_view(ids, size + 1)[::size]  # (B, N + 1), sharing one id
            prefixes = np.broadcast_to(prefix, (count, len(prefix)))  # (B, P)
            whole_ids = np.concatenate([prefixes, windows], axis=1)  # (B, P + N + 1)
            losses = sequence_loss(model, torch.from_numpy(whole_ids), chunk, advance)[:, len(prefix) :]  # (B, N)
            found = losses.to(torch.float64).numpy()
            lengths = model.tokenizer.token_bytes(windows[:, 1:].ravel()).reshape(count, size)
            if counted is not None:
                kept = np.asarray(counted[start + 1 : start + count * size + 1]).reshape(count, size)
                found, lengths = found * kept, lengths * kept
            nats[:size] += found.sum(0)
            sizes[:size] += lengths.sum(0)
    return PositionLosses(nats, sizes)


def loss_at(
    model: InferenceModel,
    corpus: Corpus,
    length: int,
    tokens: int | None = None,
    chunk: int | None = None,
) -> float:
    """Nats per byte at a context of `length`, over the first `tokens` of the validation split (of a mixture, `mixed`).

    The same `tokens` at several lengths means the same text. The default is 65,536: fewer if the split is shorter,
    more if the length is longer.
    """
    tokens = span_of(corpus.texts, length, tokens)
    losses = [position_losses(model, text.ids, length, tokens, chunk, None, text.counted) for text in corpus.texts]
    return mixed(losses, corpus.texts).nats_per_byte
