"""Scoring a model on a task: which answers it would give, and how likely it finds the right ones.

An example is read once, its right answers included. An answer counts as right if each of its tokens is the most
probable one after all before it: then greedy decoding gives exactly this answer. Its nats are -log p of its tokens.

Shapes: B examples at once, N tokens, Q answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from miniwin.evaluation.tasks import Example, Task, draw
from miniwin.inference import Advance, InferenceModel, chunk_for, evaluating, in_chunks, rows_at_once
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.characters import Characters

Spans = tuple[tuple[int, int], ...]  # (start, end) of each answer of an example, in its tokens


@dataclass(frozen=True)
class TaskScore:
    """What a model answered, (E,) each, one item an example: answers asked for, answers right, and their nats."""

    answers: np.ndarray  # (E,) int64
    right: np.ndarray  # (E,) int64
    nats: np.ndarray  # (E,) float64, summed over the answers of an example
    depths: tuple[float | None, ...]
    tokens: np.ndarray  # (E,) int64, of all answers of an example
    bytes: np.ndarray  # (E,) int64, of all answers of an example in UTF-8

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / self.answers.sum())

    @property
    def nats_per_answer(self) -> float:
        return float(self.nats.sum() / self.answers.sum())

    @property
    def nats_per_token(self) -> float:
        """The mean over the tokens of all answers."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def nats_per_byte(self) -> float:
        """The mean over the UTF-8 bytes of all answers: models with different tokenizers can be compared by it."""
        return float(self.nats.sum() / self.bytes.sum())


def score_task(
    model: InferenceModel,
    task: Task,
    length: int,
    *,
    examples: int,
    seed: int = 0,
    split: str = "valid",
    chunk: int | None = None,
    advance: Advance | None = None,
) -> TaskScore:
    """Score `examples` examples of a split, `length` bytes each. advance: told how many tokens were read.

    Raises:
        UserError: the length has no room for an example, or the tokenizer lacks one of its characters.
    """
    drawn = [draw(task, length, seed=seed, index=index, split=split) for index in range(examples)]
    prefix = () if model.tokenizer is None else model.tokenizer.prefix
    chunk = chunk_for(length) if chunk is None else chunk
    chunk += len(prefix) if chunk >= length else 0  # what fits into one pass fits with its prefix too
    rows = rows_at_once(model, length, min(chunk, length))
    right, nats = np.zeros(examples, dtype=np.int64), np.zeros(examples)
    with evaluating(model):
        for start in range(0, examples, rows):
            group = slice(start, min(start + rows, examples))
            ids = torch.from_numpy(ids_of(drawn[group], model.tokenizer, task))  # (B, N)
            ids = torch.cat((torch.tensor(prefix, dtype=torch.int64).expand(len(ids), -1), ids), dim=1)
            spans = [tuple((a + len(prefix), b + len(prefix)) for a, b in one.answers) for one in drawn[group]]
            right[group], nats[group] = answered(model, ids, spans, chunk, advance)
    answers = np.array([len(example.answers) for example in drawn])
    tokens = np.array([sum(end - start for start, end in example.answers) for example in drawn])
    return TaskScore(answers, right, nats, tuple(example.depth for example in drawn), tokens, tokens)


def ids_of(examples: Sequence[Example], tokenizer: Tokenizer | None, task: Task) -> np.ndarray:
    """(B, N) int64: the texts, one token a character."""
    text = np.stack([np.frombuffer(example.text, dtype=np.uint8) for example in examples])  # (B, N)
    return Characters(tokenizer, task.type).ids(text)


def answered(
    model: InferenceModel, ids: Tensor, answers: Sequence[Spans], chunk: int, advance: Advance | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(answers right, nats) of each example, (B,) each. ids: (B, N). A short example may have any ids behind it.

    The caller has put the model into eval mode (`evaluating`).
    """
    rows: list[int] = []
    places: list[int] = []
    spans: list[tuple[int, int]] = []  # of each answer token: its example, its place in ids, the answer it belongs to
    for number, example in enumerate(answers):
        for answer, (start, end) in enumerate(example):
            for at in range(start, end):
                rows.append(number)
                places.append(at)
                spans.append((number, answer))
    row, place = torch.tensor(rows), torch.tensor(places)  # (Q,), (Q,)
    before = place - 1  # the logits that predict a token stand one before it
    hit, loss = torch.zeros(len(row), dtype=torch.bool), torch.zeros(len(row), dtype=torch.float64)
    inputs = ids[:, : int(place.max())].to(model.device)  # nothing after the last answer is read
    cache = model.new_cache(len(ids)) if inputs.shape[1] > chunk else None

    def within(part: slice) -> Tensor:
        """Which answer tokens (Q,) are predicted in a chunk."""
        return (before >= part.start) & (before < part.stop)

    def keep(part: slice) -> int:
        # Of a chunk, only the logits from its first answer on are wanted: those of a long text are most of the work.
        inside = before[within(part)]
        return part.stop - int(inside.min()) if len(inside) else 1

    for part, logits in in_chunks(model, inputs, cache, chunk, logits_to_keep=keep):  # (B, kept, V)
        inside = within(part).nonzero()[:, 0]
        if len(inside):
            local = before[inside] - (part.stop - logits.shape[1])
            chosen = logits[row[inside].to(logits.device), local.to(logits.device)].float()  # (answer tokens here, V)
            wanted = ids[row[inside], place[inside]].to(logits.device)
            hit[inside] = (chosen.argmax(-1) == wanted).cpu()
            loss[inside] = torch.nn.functional.cross_entropy(chosen, wanted, reduction="none").double().cpu()
        if advance is not None:
            advance(len(ids) * (part.stop - part.start))
    right: dict[tuple[int, int], bool] = {}
    nats = np.zeros(len(answers))
    for span, was_hit, cost in zip(spans, hit.tolist(), loss.tolist(), strict=True):
        right[span] = right.get(span, True) and was_hit
        nats[span[0]] += cost
    counts = np.zeros(len(answers), dtype=np.int64)
    for (example_row, _), ok in right.items():
        counts[example_row] += ok
    return counts, nats
