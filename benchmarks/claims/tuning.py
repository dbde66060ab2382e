"""The same tuning for every variant: which learning rate it learns best with.

Three rates are tried, each twice the one before. While the best is the least or the greatest, the next is tried too. A
sweep trains with half of the tokens and a seed that no result uses. It is measured at the trained length on what no
result is measured on: the validation split of the tasks, and validation text after all that is reported. The rate with
the fewest nats is taken. A sweep's result files lie in `results/EXPERIMENT-tuning/VARIANT@RATE-SEED.json`.
"""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.claims import results
from benchmarks.claims.experiments import REPORTED, Experiment
from benchmarks.claims.training import trained
from benchmarks.claims.variants import VARIANTS
from miniwin.data import prepare
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.evaluation.task_scores import score_task
from miniwin.language_model import LanguageModel
from miniwin.provenance import code_version, machine
from miniwin.specs import UserError
from miniwin.specs.data import PythonStdlibData
from miniwin.tokenizer import ByteTokenizer

LADDER = tuple(3e-3 * 2.0**step for step in range(-4, 5))
FIRST = LADDER[3:6]  # 1.5e-3, 3e-3, 6e-3
SEED = 100
EXAMPLES = 256
TEXT = 1 << 18  # tokens


def sweep(experiment: Experiment, name: str, folder: Path, progress: bool = True) -> None:
    """Train and measure every rate that has no result yet. A test-time variant has the rate of its weights."""
    name = VARIANTS[name].weights_of or name
    while (rate := untried(swept(experiment, name, folder))) is not None:
        model, done = trained(experiment, VARIANTS[name], SEED, rate, shorter=2, progress=progress)
        where, variant, seed = _key(experiment, name, rate)
        found = {
            "experiment": where,
            "variant": variant,
            "seed": seed,
            "rate": rate,
            "nats": None if model is None else _nats(experiment, model),  # None: it diverged
            "commit": code_version(),
            "machine": machine()["cpu"],
            "tokens": done.tokens,
            "seconds": round(done.seconds, 1),
        }
        print(results.write(found, folder), flush=True)


def swept(experiment: Experiment, name: str, folder: Path) -> dict[float, float]:
    """Nats by rate, as far as there are results. Infinite where the training diverged."""
    name = VARIANTS[name].weights_of or name
    found = {rate: results.read(*_key(experiment, name, rate), folder) for rate in LADDER}
    return {
        rate: math.inf if result["nats"] is None else result["nats"]
        for rate, result in found.items()
        if result is not None
    }


def untried(found: dict[float, float]) -> float | None:
    """The rate to try next; None when the sweep is over. found: nats by rate."""
    for rate in FIRST:
        if rate not in found:
            return rate
    place = LADDER.index(min(found, key=lambda rate: found[rate]))
    return next((rate for rate in LADDER[max(0, place - 1) : place + 2] if rate not in found), None)


def chosen(experiment: Experiment, name: str, folder: Path) -> float | None:
    """The rate that a variant is trained with; None while its sweep is not over.

    Raises:
        UserError: the training diverged with each rate.
    """
    found = swept(experiment, name, folder)
    if untried(found) is not None:
        return None
    best = min(found, key=lambda rate: found[rate])
    if math.isinf(found[best]):
        raise UserError(f"{experiment.name}, {name}: the training diverged with each learning rate of {list(found)}")
    return best


def _key(experiment: Experiment, name: str, rate: float) -> tuple[str, str, int]:
    return f"{experiment.name}-tuning", f"{name}@{rate:g}", SEED


def _nats(experiment: Experiment, model: LanguageModel) -> float:
    """Nats of an answer, the mean over tasks; of text, nats of a byte."""
    length = experiment.trained_length
    if experiment.tasks:
        scores = [score_task(model, task, length, examples=EXAMPLES, split="valid") for task in experiment.tasks]
        return round(sum(score.nats_per_answer for score in scores) / len(scores), 5)
    text = prepare(PythonStdlibData(), ByteTokenizer()).valid[REPORTED:]
    return round(position_losses(model, text, length, TEXT).nats_per_byte, 5)
