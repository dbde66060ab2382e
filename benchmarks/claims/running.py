"""One run: train a variant with a seed, measure it, and write its result file.

A test-time variant measures the weights of another one, which are trained first if need be.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.claims import results
from benchmarks.claims.ablation import ablated
from benchmarks.claims.experiments import Experiment, trained_as
from benchmarks.claims.training import model_spec, trained
from benchmarks.claims.tuning import chosen
from benchmarks.claims.variants import VARIANTS, Variant
from miniwin.data import prepare
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.evaluation.task_scores import score_task
from miniwin.evaluation.tasks import Task
from miniwin.language_model import LanguageModel
from miniwin.provenance import code_version, machine
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.specs.data import PythonStdlibData
from miniwin.tokenizer import ByteTokenizer

PIECE = 1024  # tokens: the losses of a long text are kept in pieces of this length


def run(
    experiment: Experiment,
    name: str,
    seed: int,
    folder: Path = results.FOLDER,
    progress: bool = True,
    work: Path | None = None,
) -> Path:
    """Train and measure. The result file's path. Of a training that diverged, the result says so, and nothing else.

    work: where the runs lie; by default in the user's cache.

    Raises:
        UserError: the variant has not been tuned, or its training was stopped.
    """
    variant = VARIANTS[name]
    source = trained_as(experiment)
    rate = chosen(source, name, folder) if source.tuned else None
    if source.tuned and rate is None:
        raise UserError(
            f"{source.name}, {name}: its learning rate has not been tuned; run python -m benchmarks.claims --only "
            f"{source.name} --variant {name}"
        )
    began = time.monotonic()
    model, done = trained(source, VARIANTS[variant.weights_of or name], seed, rate, progress=progress, work=work)
    result: dict[str, Any] = {
        "experiment": experiment.name,
        "variant": name,
        "seed": seed,
        "commit": code_version(),
        "machine": machine()["cpu"],
        "threads": torch.get_num_threads(),
        "rate": source.train["optimizer"]["lr"] if rate is None else rate,
        "steps": done.steps,
        "tokens": done.tokens,
        "train_seconds": round(done.seconds, 1),
        "parameters": model_spec(variant).parameters(),
    }
    if model is None:
        return results.write(
            {**result, "diverged": done.reason, "tasks": [], "text": [], "seconds": done.seconds}, folder
        )
    rows = [
        measured(variant, model, experiment, task, length, examples)
        for task in experiment.tasks
        for length, examples in experiment.lengths
    ]
    text = [of_text(variant, model, experiment, length) for length in experiment.text]
    if experiment.ablation:
        result["ablations"] = ablated(experiment, model)
    result |= {"tasks": rows, "text": text, "seconds": round(time.monotonic() - began, 1)}
    return results.write(result, folder)


def is_done(experiment: Experiment, name: str, seed: int, folder: Path) -> bool:
    """Whether there is a result that counts."""
    found = results.read(experiment.name, name, seed, folder)
    return found is not None and fits(experiment, found, folder)


def fits(experiment: Experiment, result: dict[str, Any], folder: Path) -> bool:
    """Whether a result has the learning rate that the tuning has chosen, if it has chosen one yet."""
    source = trained_as(experiment)
    rate = chosen(source, result["variant"], folder) if source.tuned else None
    before_tuning = source.train["optimizer"]["lr"]  # the oldest results do not say their rate
    return rate in (None, result.get("rate", before_tuning))


def measured(
    variant: Variant, model: LanguageModel, experiment: Experiment, task: Task, length: int, examples: int
) -> dict[str, Any]:
    """A task at a length: answers right in each example, one digit each, and the nats of all answers."""
    changed = at_length(variant, model, experiment.trained_length, length)
    score = score_task(changed, task, length, examples=examples, seed=experiment.draws, split="test")
    return {
        "task": task.type,
        "length": length,
        "examples": examples,
        "answers": int(score.answers[0]),
        "right": "".join(map(str, score.right.tolist())),
        "nats": round(score.nats_per_answer, 5),
    }


def of_text(variant: Variant, model: LanguageModel, experiment: Experiment, length: int) -> dict[str, Any]:
    """Bits per byte of the first validation text in windows of a length; of a long window also in pieces."""
    corpus = prepare(PythonStdlibData(), ByteTokenizer())
    changed = at_length(variant, model, experiment.trained_length, length)
    losses = position_losses(changed, corpus.valid, length, experiment.text_bytes)
    pieces = [round(losses.bits_per_byte(start, start + PIECE), 5) for start in range(0, length, PIECE)]
    return {"length": length, "bits": round(losses.nats_per_byte / math.log(2), 5), "pieces": pieces}


def at_length(variant: Variant, model: LanguageModel, trained: int, length: int) -> LanguageModel:
    """The model as the variant uses it at a length: itself, unless the variant changes something at test time."""
    if variant.weights_of is None:
        return model
    if variant.changed.get("scale") == "log-from-trained":
        changed = rebuilt(model, {"type": "nope", "logit_scale": {"type": "log", "learned": False, "init": 1.0}})
        for attention in changed.decoder.attentions:
            position = attention.position
            if getattr(position, "logit_scale", None) is not None:
                position.logit_scale = AtLeastOne(trained)
        return changed
    kind, factor = variant.changed["scaling"], length / trained
    if factor <= 1:
        return model
    scaling = {"type": kind, "factor": factor}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = trained
    return rebuilt(model, {**(variant.globally or {}), "scaling": scaling})


def rebuilt(model: LanguageModel, position: dict[str, Any]) -> LanguageModel:
    """The same weights, with other positions in the global layers."""
    data = model.spec.model_dump(mode="json")
    data["blocks"]["G"]["attention"]["position"] = position
    spec = parse_spec(data, "model")
    assert isinstance(spec, ModelSpec)
    decoder = spec.build()
    decoder.load_state_dict(model.decoder.state_dict())
    return LanguageModel(decoder, spec, model.tokenizer, model.ref).eval()


class AtLeastOne(nn.Module):
    """max(1, log(n) / log(trained)) for a query that sees n keys."""

    def __init__(self, trained: int) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, visible: Tensor, total: int) -> Tensor:
        ratio = visible.to(torch.float32).log() / math.log(self.trained)  # (., N)
        return ratio.clamp(min=1.0).unsqueeze(-1).unsqueeze(-1)  # (., N, 1, 1)
