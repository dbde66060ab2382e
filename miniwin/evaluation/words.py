"""Scoring a model on a task that is asked in words, with the model's own tokenizer.

A text has at most `length` tokens, answers and <bos> included: facts in filler, the question, and after `Answer:` what
is right. The tokens of an answer are those of the whole text, and its space belongs to it. An answer is right if greedy
decoding begins with exactly its tokens, given the answers before it. Where the order of several answers does not count,
the model writes on greedily, and each answer that occurs among its words is right (RULER's rule, arXiv:2404.06654).

Shapes: B examples at once, N tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import numpy as np
import torch

from miniwin.evaluation.task_scores import Spans, TaskScore, answered
from miniwin.evaluation.tasks.words import BuiltIn, Filler, Passage, WordTask, draw_passage, lay
from miniwin.inference import Advance, InferenceModel, chunk_for, evaluating, rows_at_once
from miniwin.specs import UserError
from miniwin.tokenizer import Tokenizer

PROMPT = "{prompt}"  # where a chat template has the text


@dataclass(frozen=True)
class Asked:
    """A passage as a model reads it: the whole text, its ids (N,), and which of them each answer has."""

    passage: Passage
    text: str
    ids: list[int]
    spans: Spans
    depth: float | None


def score_words(
    model: InferenceModel,
    task: WordTask,
    length: int,
    *,
    examples: int,
    seed: int = 0,
    split: str = "valid",
    filler: Filler | None = None,
    template: str | None = None,
    chunk: int | None = None,
    advance: Advance | None = None,
) -> TaskScore:
    """Score `examples` examples of a split, of at most `length` tokens each. advance: told how many tokens were read.

    filler: what the facts stand in, for tasks that bring none; None is built-in sentences. template: a chat's text
    around the question, with {prompt} in place of it; its special tokens are read as such, <bos> included.

    Raises:
        UserError: the model has no tokenizer, an example does not fit, or the template has no place for the text.
    """
    asked = ask(model, task, length, examples=examples, seed=seed, split=split, filler=filler, template=template)
    chunk = chunk_for(length) if chunk is None else chunk
    rows = rows_at_once(model, length, min(chunk, length))
    parts: list[TaskScore] = []
    with evaluating(model):
        while group := list(islice(asked, rows)):  # only the texts of one pass are held
            longest = max(len(one.ids) for one in group)
            # Padded behind: what comes later changes nothing.
            ids = torch.tensor([one.ids + [0] * (longest - len(one.ids)) for one in group])  # (B, N)
            right, nats = answered(model, ids, [one.spans for one in group], chunk, advance)
            for number, one in enumerate(group):
                if not one.passage.ordered:
                    right[number] = _written(model, one)
            parts.append(_score(group, right, nats))
    return TaskScore(
        answers=np.concatenate([part.answers for part in parts]),
        right=np.concatenate([part.right for part in parts]),
        nats=np.concatenate([part.nats for part in parts]),
        depths=tuple(depth for part in parts for depth in part.depths),
        tokens=np.concatenate([part.tokens for part in parts]),
        bytes=np.concatenate([part.bytes for part in parts]),
    )


def _score(asked: Sequence[Asked], right: np.ndarray, nats: np.ndarray) -> TaskScore:
    return TaskScore(
        answers=np.array([len(one.spans) for one in asked]),
        right=right,
        nats=nats,
        depths=tuple(one.depth for one in asked),
        tokens=np.array([sum(end - start for start, end in one.spans) for one in asked]),
        bytes=np.array([sum(len(f" {answer}".encode()) for answer in one.passage.answers) for one in asked]),
    )


def ask(
    model: InferenceModel,
    task: WordTask,
    length: int,
    *,
    examples: int,
    seed: int = 0,
    split: str = "valid",
    filler: Filler | None = None,
    template: str | None = None,
) -> Iterator[Asked]:
    """The examples that `score_words` scores, each made when it is asked for. The arguments are those of `score_words`.

    Raises:
        UserError: as `score_words`, at once; if an id is too large for the model, with the first example.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise UserError(
            f"{model.ref} has no tokenizer, and task {task.type} is asked in words; use a model with a tokenizer"
        )
    if template is not None and template.count(PROMPT) != 1:
        raise UserError(f"template: got {template!r}; expected a text with {PROMPT} in it once")
    passages = [draw_passage(task, seed=seed, index=index, split=split) for index in range(examples)]
    reader = _Reader(tokenizer, template)
    least = max(len(reader.ids(reader.whole(passage, passage.bare))) for passage in passages)
    if least > length:
        raise UserError(
            f"task {task.type}: an example takes up to {least} tokens of the tokenizer {tokenizer.name}, and length is "
            f"{length}; make the length at least {least}, or the example smaller by the task's fields"
        )
    seeds = [f"{task.said} filler {seed} {index} {split}" for index in range(examples)]
    surroundings = filler or BuiltIn()
    return (
        _laid(model, reader, passage, Random(one), surroundings, length)
        for passage, one in zip(passages, seeds, strict=True)
    )


def _laid(
    model: InferenceModel, reader: _Reader, passage: Passage, random: Random, filler: Filler, length: int
) -> Asked:
    def whole(context: str) -> str:
        return reader.whole(passage, context)

    layout = lay(passage, random, filler, length - len(reader.prefix), reader.sizes, whole)
    text = whole(layout.context)
    ids = reader.ids(text)
    if max(ids) >= model.spec.vocab_size:
        raise UserError(
            f"the tokenizer {reader.tokenizer.name} gives the id {max(ids)}, and {model.ref} knows the ids 0 to "
            f"{model.spec.vocab_size - 1} only; use the tokenizer that the model was trained with"
        )
    spans = passage.spans(len(text) - len(passage.answer))
    return Asked(passage, text, ids, token_spans(reader.ids, text, ids, spans), layout.depth)


class _Reader:
    """From texts to ids: as a bare completion, or in a chat."""

    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.prefix = tokenizer.prefix if template is None else ()

    def whole(self, passage: Passage, context: str) -> str:
        prompt = passage.asked(context)
        if self.template is not None:
            prompt = self.template.replace(PROMPT, prompt.strip())
        return prompt + passage.lead + passage.answer

    def ids(self, text: str) -> list[int]:
        if self.template is not None:
            return self.tokenizer.encode_prompt(text, begins=False)
        return [*self.prefix, *self.tokenizer.encode(text)]

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without those in front of all texts."""
        if self.template is not None:
            return [len(self.ids(text)) for text in texts]
        return [len(ids) for ids in self.tokenizer.encode_batch(texts)]


def token_spans(
    encode: Callable[[str], list[int]], text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]
) -> Spans:
    """The tokens of each span of characters. A token that reaches over an edge of a span is one of its tokens."""

    def before(place: int) -> tuple[int, bool]:
        """(tokens that lie before a place as a whole, whether the next token begins there)."""
        part = encode(text[:place])
        same = 0
        while same < min(len(part), len(ids)) and part[same] == ids[same]:
            same += 1
        return same, same == len(part)

    found = []
    for start, end in spans:
        first, _ = before(start)
        last, whole = before(end)
        found.append((first, last if whole else last + 1))
    return tuple(found)


def _written(model: InferenceModel, asked: Asked) -> int:
    """How many of the answers are among the words that the model writes greedily, in any order."""
    from miniwin.generation import generate

    start = asked.spans[0][0]
    room = 2 * (len(asked.ids) - start)  # other words may stand between the answers
    said = generate(model, asked.ids[:start], max_new_tokens=room, temperature=0.0).text.casefold()
    return sum(
        re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", said) is not None for answer in asked.passage.answers
    )
