"""Associative recall by length: can a model look up what it read thousands of tokens ago?

Each sequence hides key-value pairs in filler and ends with a query for every key (`miniwin.data.tasks`).
Accuracy is the share of queries whose answer is the most probable token of the whole vocabulary. Guessing a
value is right once in 26. A model that was never trained on such text may be below that.

Shapes: B sequences at once, N length, Q queries, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.inference import Advance, InferenceModel, Task, chunk_for, evaluating, in_chunks, rows_at_once

NUM_PAIRS = 16
SHORTEST = 2 * 5 * NUM_PAIRS  # the pairs and their queries, without any filler
TOKENS = 2**16  # of all sequences of one length together, about
FEWEST, MOST = 4, 32  # sequences of one length


def recall_at(
    model: InferenceModel,
    length: int,
    *,
    sequences: int | None = None,
    num_pairs: int = NUM_PAIRS,
    seed: int = 0,
    chunk: int | None = None,
    task: Task | None = None,
) -> float:
    """Accuracy, 0 to 1, over `sequences` sequences of `length` tokens. The seed decides which sequences."""
    from miniwin.data.tasks import associative_recall

    count = max(FEWEST, min(MOST, TOKENS // length)) if sequences is None else sequences
    chunk = chunk_for(length) if chunk is None else chunk
    ids, positions, answers = associative_recall(
        length, num_pairs=num_pairs, seed=seed, batch=count, tokenizer=model.tokenizer
    )
    advance = None if task is None else task(f"recall at {length:,}", count * length)
    if model.tokenizer is not None and model.tokenizer.prefix:  # an imported model expects its texts to begin so
        first = torch.tensor(model.tokenizer.prefix)  # (P,)
        ids, positions = torch.cat((first.expand(count, -1), ids), dim=1), positions + len(first)  # (B, P + N), (B, Q)
        chunk += len(first) if chunk >= length else 0  # a sequence that fits into one pass fits with its prefix too
    rows = rows_at_once(model, length, min(chunk, length))
    right = 0
    with evaluating(model):
        for part in range(0, count, rows):
            group = slice(part, part + rows)
            right += _right(model, ids[group].to(model.device), positions[group], answers[group], chunk, advance)
    return right / answers.numel()


def _right(
    model: InferenceModel, ids: Tensor, positions: Tensor, answers: Tensor, chunk: int, advance: Advance | None
) -> int:
    """How many of the answers (B, Q) the model ranks first at `positions` (B, Q) of ids (B, N)."""
    cache = model.new_cache(len(ids)) if ids.shape[1] > chunk else None

    def within(part: slice) -> Tensor:
        """Which queries (B, Q) a chunk holds."""
        return (positions >= part.start) & (positions < part.stop)

    def keep(part: slice) -> int:
        # Chunks without a query only feed the cache: their logits would be most of the work.
        return 0 if within(part).any() else 1

    right = 0
    for part, logits in in_chunks(model, ids, cache, chunk, logits_to_keep=keep):  # (B, C or 1, V)
        row, query = within(part).nonzero(as_tuple=True)
        if len(row):
            best = logits[row, positions[row, query] - part.start].argmax(-1).cpu()  # (queries in this chunk,)
            right += int((best == answers[row, query]).sum())
        if advance is not None:
            advance(len(ids) * (part.stop - part.start))
    return right
