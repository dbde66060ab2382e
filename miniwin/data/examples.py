"""Rows of a task's examples (`source: examples`): drawn when they are needed, and never twice.

    row k of length N    the example number k of N + 1 bytes, with the seed (seed of the data, seed of the run)
    inputs, targets      its bytes 0 .. N - 1, and 1 .. N; with `loss: answers` a target outside the answers is -100

A row depends on nothing else, so nothing is kept on disk, and a run resumes at any row.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from miniwin.data.rows import IGNORED, Row
from miniwin.evaluation.tasks import Task, draw
from miniwin.specs import UserError
from miniwin.specs.data import ExamplesData
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.characters import Characters

DRAWING = 1  # version of how tasks, seeds and numbers become rows; part of the fingerprint


class ExampleRows:
    """Examples of the `train` split of a task."""

    def __init__(self, spec: ExamplesData, tokenizer: Tokenizer) -> None:
        self.task, self.seed, self.answers_only = spec.parsed_task, spec.seed, spec.loss == "answers"
        self.characters = Characters(tokenizer, self.task.type)

    def check(self, seq_len: int) -> None:
        check_task(self.task, seq_len)
        self.rows(0, 1, seq_len, 0)

    def rows(self, first: int, count: int, seq_len: int, seed: int) -> list[Row]:
        return [self._row(number, seq_len, seed) for number in range(first, first + count)]

    def documents(self, first: int, count: int, seq_len: int, seed: int) -> dict[int, np.ndarray]:
        return {}

    def sizes(self, first: int, count: int) -> tuple[int, ...]:
        return (count,)

    def _row(self, number: int, seq_len: int, seed: int) -> Row:
        # One number that no other two seeds give: a run's seed has 64 bits.
        example = draw(self.task, seq_len + 1, seed=(self.seed << 64) + seed, index=number, split="train")
        ids = self.characters.ids(np.frombuffer(example.text, dtype=np.uint8))  # (N + 1,)
        targets = ids[1:]
        if self.answers_only:
            targets = np.full(seq_len, IGNORED, dtype=np.int64)
            for start, end in example.answers:
                targets[start - 1 : end - 1] = ids[start:end]
        return ids[:-1], targets


def check_task(task: Task, seq_len: int) -> None:
    """Raise UserError if no row of seq_len tokens is an example."""
    if seq_len + 1 < task.shortest:
        raise UserError(
            f"task {task.type}: an example takes at least {task.shortest} bytes, so seq_len has to be at least "
            f"{task.shortest - 1}; got {seq_len}: make seq_len longer, or the example smaller by the task's fields"
        )
    task.check_length(seq_len + 1)


def fingerprint(spec: ExamplesData, tokenizer: Tokenizer) -> str:
    """A hash of all that the rows depend on, besides the run's seed."""
    question = [DRAWING, spec.model_dump(mode="json"), tokenizer.identity]
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
