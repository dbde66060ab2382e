"""Which seed of the champion the zoo gets: the best on the validation split, so that the test split stays a test.

The score of a seed is the mean share of right answers over the experiment's tasks at 16 times the training length. Of
equal seeds the one that finds the right answers more probable is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims import results
from benchmarks.claims.experiments import Experiment
from benchmarks.claims.training import work_folder
from miniwin import load
from miniwin.evaluation.task_scores import score_task
from miniwin.language_model import LanguageModel
from miniwin.provenance import code_version
from miniwin.runs import read_run
from miniwin.specs import UserError

TIMES = 16
EXAMPLES = 256


@dataclass(frozen=True)
class Candidate:
    """A seed's scores on the validation split. shares, nats: of each task of the experiment, nats of an answer."""

    seed: int
    folder: Path
    shares: tuple[float, ...]
    nats: tuple[float, ...]

    @property
    def rank(self) -> tuple[float, float]:
        """The greatest is the best."""
        return sum(self.shares) / len(self.shares), -sum(self.nats) / len(self.nats)


def choose(experiment: Experiment, examples: int = EXAMPLES, folder: Path = results.FOLDER) -> Candidate:
    """Score each seed, print the scores, and name the best. They are kept in `chosen/EXPERIMENT-0.json`.

    Raises:
        UserError: a seed has not been trained to its end.
    """
    variant = experiment.variants[0]
    folders = [work_folder() / experiment.name / f"{variant}-{seed}" for seed in range(experiment.seeds)]
    for run in folders:
        if (status := read_run(run)["status"]) != "complete":
            raise UserError(
                f"{run}: the run is {status}, not complete; finish it: python -m benchmarks.claims --only "
                f"{experiment.name}"
            )
    length = TIMES * experiment.trained_length
    print(f"validation split, {length:,} tokens, {examples} examples of each task")
    print("seed" + "".join(f"{task.type:>14}" for task in experiment.tasks) + f"{'mean':>10}{'nats':>12}")
    candidates = []
    for seed, run in enumerate(folders):
        found = _scored(experiment, load(str(run)), seed, run, length, examples)
        shares = "".join(f"{share:>14.4f}" for share in found.shares)
        print(f"{seed:>4}{shares}{found.rank[0]:>10.4f}{-found.rank[1]:>12.6f}", flush=True)
        candidates.append(found)
    best = max(candidates, key=lambda one: one.rank)
    print(f"seed {best.seed}: {best.folder}")
    scores = [{"seed": one.seed, "shares": one.shares, "nats": one.nats} for one in candidates]
    said = {"experiment": "chosen", "variant": experiment.name, "seed": 0, "best": best.seed, "split": "valid"}
    results.write({**said, "length": length, "examples": examples, "scores": scores, "commit": code_version()}, folder)
    return best


def _scored(
    experiment: Experiment, model: LanguageModel, seed: int, folder: Path, length: int, examples: int
) -> Candidate:
    scores = [score_task(model, task, length, examples=examples, split="valid") for task in experiment.tasks]
    return Candidate(
        seed,
        folder,
        tuple(score.accuracy for score in scores),
        tuple(score.nats_per_answer for score in scores),
    )
