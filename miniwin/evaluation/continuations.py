"""How likely a model finds given continuations of given contexts, and whether greedy decoding would write them.

    nats = sum of -log p(token | all before it), over the tokens of a continuation

A text is read once, whatever continuations it holds: answers of one token to the same question cost one pass. Texts of
about the same length are read side by side, padded on the left, chunk by chunk in bounded memory. Padding and chunks
change a result by float32 rounding only.

Shapes: B texts at once, N tokens of the longest, Q tokens of the longest continuation, C chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from miniwin.blocks import Cache
from miniwin.inference import InferenceModel, chunk_for, evaluating, in_chunks, rows_at_once
from miniwin.specs import UserError

Pair = tuple[Sequence[int], Sequence[int]]  # the ids of a context, at least one, and of its continuation, at least one


class Likelihood(NamedTuple):
    """`greedy`: each token of the continuation is the most probable one after all before it."""

    nats: float
    greedy: bool


def score_continuations(
    model: InferenceModel, pairs: Sequence[Pair], *, rows: int | None = None, chunk: int | None = None
) -> Iterator[list[tuple[int, Likelihood]]]:
    """Yields batch after batch, the longest texts first: the numbers of the pairs, and what was found for each.

    rows: texts side by side, at most. Default: as many as memory is meant to hold (`rows_at_once`).

    Raises:
        UserError: an id is not one of the model's.
    """
    readers: dict[tuple[int, ...], list[int]] = {}  # what the model reads: the pairs that this answers
    for number, (context, continuation) in enumerate(pairs):
        assert context and continuation
        whole = (*context, *continuation)
        _check_ids(model, whole)
        readers.setdefault(whole[:-1], []).append(number)
    waiting = sorted(readers, key=len, reverse=True)
    while waiting:
        longest = len(waiting[0])
        size = chunk_for(longest) if chunk is None else chunk
        most = rows_at_once(model, longest, min(size, longest))
        batch, waiting = waiting[: min(most, rows or most)], waiting[min(most, rows or most) :]
        asked = max(len(pairs[number][1]) for text in batch for number in readers[text])
        with evaluating(model):
            nats, hit, last = _read(model, batch, asked, size)
        found = []
        for row, text in enumerate(batch):
            for number in readers[text]:
                *inner, token = pairs[number][1]
                place = slice(
                    asked - 1 - len(inner), asked - 1
                )  # of all tokens but the last, which pairs may differ in
                cost = float(nats[row, place].sum()) - float(last[row, token])
                greedy = bool(hit[row, place].all()) and int(last[row].argmax()) == token
                found.append((number, Likelihood(cost, greedy)))
        yield found


def _read(
    model: InferenceModel, texts: Sequence[tuple[int, ...]], asked: int, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the last Q - 1 tokens of each text their nats and whether each was the most probable one, (B, Q - 1) each; and
    log p of what comes next (B, V)."""
    length = len(texts[0])
    ids = torch.tensor([(0,) * (length - len(text)) + text for text in texts], device=model.device)  # (B, N)
    padding = torch.tensor([length - len(text) for text in texts], device=model.device)  # (B,)
    mask = (torch.arange(length, device=model.device) >= padding.unsqueeze(1)).long()  # (B, N), 0: padding
    cache = model.new_cache(len(texts)) if length > chunk else None
    if isinstance(cache, Cache):
        cache.reserve(length)  # a cache that grows is in memory twice while it is copied
    first = length - asked  # the logits here are the first that anybody asks for
    nats = torch.zeros(len(texts), asked - 1, dtype=torch.float64)
    hit = torch.zeros(len(texts), asked - 1, dtype=torch.bool)
    seen = mask if len(texts[-1]) < length else None

    def keep(part: slice) -> int:
        return max(part.stop - max(part.start, first), 1)

    for part, logits in in_chunks(model, ids, cache, chunk, attention_mask=seen, logits_to_keep=keep):  # (B, kept, V)
        start, stop = max(part.start, first), min(part.stop, length - 1)
        if start < stop:
            known = logits[:, : stop - start].float()  # (B, kept, V), those whose next token is in the text
            targets = ids[:, start + 1 : stop + 1]  # (B, kept)
            place = slice(start - first, stop - first)
            nats[:, place] = F.cross_entropy(known.transpose(1, 2), targets, reduction="none").double().cpu()
            hit[:, place] = (known.argmax(-1) == targets).cpu()
    return nats, hit, logits[:, -1].double().log_softmax(-1).cpu()


def _check_ids(model: InferenceModel, ids: Sequence[int]) -> None:
    size = model.spec.vocab_size
    for token in (min(ids), max(ids)):
        if not 0 <= token < size:
            raise UserError(f"a text holds the id {token}, and {model.ref} knows the ids 0 to {size - 1} only")
