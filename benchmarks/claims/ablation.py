"""Which heads do the work: each head of the champion is silenced, and the tasks are asked again.

A head is silenced by zeros in the columns of the output projection that read it. Its layer's other heads and the
residual stream stay. The result is one more row for each head: `ablations` in the champion's result file.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from benchmarks.claims.experiments import Experiment
from benchmarks.claims.variants import HEADS
from miniwin.evaluation.task_scores import score_task
from miniwin.language_model import LanguageModel

LENGTHS = ((128, 128), (2048, 32))  # (length, examples)


def ablated(experiment: Experiment, model: LanguageModel) -> list[dict[str, Any]]:
    """The share of right answers without each head, for every task and length."""
    found = []
    layout = model.spec.layout
    for layer in range(model.spec.num_layers):
        for head in range(HEADS):
            silenced = without(model, layer, head)
            for task in experiment.tasks:
                for length, examples in LENGTHS:
                    score = score_task(silenced, task, length, examples=examples, split="test")
                    found.append(
                        {
                            "layer": layer,
                            "kind": layout[layer],
                            "head": head,
                            "task": task.type,
                            "length": length,
                            "examples": examples,
                            "share": round(score.accuracy, 4),
                        }
                    )
    return found


@torch.no_grad()
def without(model: LanguageModel, layer: int, head: int) -> LanguageModel:
    """A copy of the model in which a head writes nothing into the stream."""
    silenced = copy.deepcopy(model)
    weight = silenced.decoder.attentions[layer].o_proj.weight  # (C, H * D)
    size = weight.shape[1] // HEADS
    weight[:, head * size : (head + 1) * size] = 0.0
    return silenced
