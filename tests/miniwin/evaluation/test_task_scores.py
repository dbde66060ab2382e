"""Scores of tasks: those of one plain forward pass, whatever the chunks, and an answer of several tokens as a whole."""

from __future__ import annotations

from random import Random
from typing import Literal

import numpy as np
import pytest
import tiny
import torch

from miniwin import build
from miniwin.evaluation.task_scores import score_task
from miniwin.evaluation.tasks import Example, Recall, Task, WhichFirst, draw


class Echo(Task):
    """Not registered: two answers of two and of three bytes."""

    type: Literal["echo"] = "echo"

    @property
    def chance(self) -> float:
        return 0.0

    @property
    def shortest(self) -> int:
        return 10

    def example(self, random: Random, length: int) -> Example:
        return Example(random.randbytes(length).translate(b"abcdefgh" * 32), ((3, 5), (length - 4, length - 1)))


@pytest.mark.parametrize("chunk", [None, 7, 16])
@pytest.mark.parametrize("task", [Echo(), Recall(num_pairs=3, num_queries=2), WhichFirst()])
def test_scores_are_those_of_one_pass(task: Task, chunk: int | None) -> None:
    torch.manual_seed(0)
    model = build(tiny.spec())
    with torch.no_grad():  # confident and sometimes right: an untrained model is neither
        model.decoder.head.weight.mul_(60)
    score = score_task(model, task, 45, examples=12, seed=3, split="test", chunk=chunk)
    for index in range(12):
        example = draw(task, 45, seed=3, index=index, split="test")
        ids = torch.tensor(list(example.text))
        with torch.no_grad():
            logits = model(ids[None])[0].double()  # (N, V)
        right, nats = 0, 0.0
        for start, end in example.answers:
            spot = logits[start - 1 : end - 1]
            right += bool((spot.argmax(-1) == ids[start:end]).all())
            nats -= float(spot.log_softmax(-1)[range(end - start), ids[start:end]].sum())
        assert score.right[index] == right and score.answers[index] == len(example.answers)
        assert np.isclose(score.nats[index], nats, rtol=1e-4, atol=1e-4)
    assert score.accuracy == score.right.sum() / score.answers.sum()
