"""Training a variant with a seed, in the user's cache. A run that was killed is continued from its checkpoint."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from benchmarks.claims.experiments import Experiment
from benchmarks.claims.variants import Variant
from miniwin import load, train
from miniwin.files.folders import cache_folder
from miniwin.language_model import LanguageModel
from miniwin.runs import RunResult
from miniwin.specs import ModelSpec, TrainSpec, UserError, parse_spec


def work_folder() -> Path:
    return cache_folder() / "claims"


def trained(
    experiment: Experiment,
    variant: Variant,
    seed: int,
    rate: float | None = None,
    *,
    shorter: int = 1,
    progress: bool = True,
    work: Path | None = None,
) -> tuple[LanguageModel | None, RunResult]:
    """The model, and how its training went. The model is None if it diverged.

    rate: the learning rate, in place of the experiment's. shorter: the tokens are divided by this. work: where the
    runs lie; by default in the user's cache.

    Raises:
        UserError: the run was stopped.
    """
    name = variant.name if rate is None else f"{variant.name}@{rate:g}"
    folder = (
        (work or work_folder()) / (experiment.name if shorter == 1 else f"{experiment.name}-tuning") / f"{name}-{seed}"
    )
    spec = train_spec(experiment, variant, seed, rate, shorter)
    done = train(model_spec(variant), spec, out=folder, progress=progress, tracking="off")
    if done.status == "diverged":
        return None, done
    if done.status != "complete":
        raise UserError(f"{folder}: the run ended as {done.status} ({done.reason}); the same command goes on with it")
    return load(str(folder)), done


def model_spec(variant: Variant) -> ModelSpec:
    spec = parse_spec(variant.spec(), "model")
    assert isinstance(spec, ModelSpec)
    return spec


def train_spec(
    experiment: Experiment, variant: Variant, seed: int, rate: float | None = None, shorter: int = 1
) -> TrainSpec:
    data = deepcopy(experiment.train) | deepcopy(variant.train) | {"seed": seed}
    data["tokens"] //= shorter
    if rate is not None:
        data["optimizer"]["lr"] = rate
    parts = data["data"].get("parts", [{"data": data["data"]}])
    for part in parts:
        if part["data"]["source"] == "examples":
            part["data"]["seed"] = seed
    spec = parse_spec(data, "train")
    assert isinstance(spec, TrainSpec)
    return spec
