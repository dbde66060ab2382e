"""What is trained, on what, and what is measured: the same for every variant of an experiment.

Each experiment has its seeds. A seed decides the first weights and every example that is trained on. Tasks are measured
on their test split, with the same examples for every variant and seed; text is measured on the validation part of the
standard library, which no variant was chosen on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.claims.variants import CHAMPION, RECIPES, TEST_TIME, TRAINED
from miniwin.evaluation.tasks import LastWrite, PositionModulo, Recall, Task, WhichFirst

TRAINED_LENGTH = 128
REPORTED = 262144  # tokens of validation text that results may be of; the rest is for tuning
RECALL = Recall(num_pairs=8, num_queries=4, key_length=1)
LAST_WRITE = LastWrite(num_keys=3, writes=3, num_queries=2, key_length=1)
WHICH_FIRST = WhichFirst(num_marks=6, num_queries=3)
EVERY = tuple(variant.name for variant in (*TRAINED, *TEST_TIME))


@dataclass(frozen=True)
class Experiment:
    """tasks: measured at each of `lengths`, with so many examples. draws: which examples of the test split.
    text: bits per byte at each of these lengths, always of the same `text_bytes`.
    weights_of: the experiment whose models are measured; empty: its own.
    ablation: the tasks are also asked of the model without each of its heads.
    tuned: each variant is trained with the learning rate that is best for it (see tuning.py).
    """

    name: str
    what: str
    variants: tuple[str, ...]
    seeds: int
    train: dict[str, Any]  # a train spec, without its seed
    trained_length: int
    tasks: tuple[Task, ...] = ()
    lengths: tuple[tuple[int, int], ...] = ()  # (length, examples)
    draws: int = 0
    text: tuple[int, ...] = ()
    text_bytes: int = 65536
    weights_of: str = ""
    ablation: bool = False
    tuned: bool = False


def _train(name: str, steps: int, data: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A run of `steps` steps of 1,024 tokens. The optimizer is what makes every seed learn."""
    return {
        "kind": "train",
        "format": 1,
        "name": name,
        "data": data,
        "seq_len": [64, 128],
        "batch_size": 8,
        "tokens": 1024 * steps,
        "optimizer": {"type": "muon", "lr": 3e-3, "beta2": 0.98, "weight_decay": 0.01},
        "schedule": {"type": "cosine", "warmup": 0.0125, "final": 0.1},
        "dtype": "bfloat16",
        "log_every": 100,
        "checkpoint_seconds": 30,
        **changed,
    }


def _mixture(*tasks: Task) -> dict[str, Any]:
    parts = [{"weight": 1, "name": task.type, "data": _examples(task)} for task in tasks]
    return {"source": "mixture", "parts": parts}


def _examples(task: Task) -> dict[str, Any]:
    return {"source": "examples", "task": task.model_dump(mode="json")}


ORDER = (RECALL, LAST_WRITE, WHICH_FIRST)
POSITION = PositionModulo(modulo=4)

EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "quick",
            "`tasks` with half of the tokens, three variants, two seeds: does the order of recall come out the same?",
            ("harmonic-log", "minimind", "no-global"),
            2,
            _train("quick", 3000, _mixture(*ORDER)),
            TRAINED_LENGTH,
            (RECALL,),
            ((128, 128), (512, 128), (2048, 64)),
        ),
        Experiment(
            "tasks",
            "recall, last write wins and which came first, learnt by one model at lengths 64 and 128",
            EVERY,
            5,
            _train("tasks", 6000, _mixture(*ORDER)),
            TRAINED_LENGTH,
            ORDER,
            ((128, 256), (512, 256), (2048, 128), (8192, 32)),
            tuned=True,
        ),
        Experiment(
            "longer",
            "the same three tasks with four times the tokens, in batches of twice the size",
            ("harmonic-log",),
            5,
            _train("longer", 24000, _mixture(*ORDER), batch_size=16),
            TRAINED_LENGTH,
            ORDER,
            ((128, 256), (512, 256), (2048, 256), (8192, 64), (32768, 16)),
            ablation=True,
        ),
        Experiment(
            "champion",
            "the model of the zoo: trained as in `longer`, with a third global layer",
            (CHAMPION.name,),
            5,
            _train("champion", 24000, _mixture(*ORDER), batch_size=16),
            TRAINED_LENGTH,
            ORDER,
            ((128, 256), (512, 256), (2048, 256), (8192, 64), (32768, 16)),
            ablation=True,
        ),
        Experiment(
            "confirm",
            "the models of `champion`, on examples that nothing was decided by",
            (CHAMPION.name,),
            5,
            {},
            TRAINED_LENGTH,
            ORDER,
            ((128, 256), (2048, 256), (8192, 128)),
            draws=1,
            weights_of="champion",
        ),
        Experiment(
            "recipe",
            "the same tasks with other optimizers and first weights than in `tasks`: what makes every seed learn?",
            tuple(variant.name for variant in RECIPES),
            5,
            _train("recipe", 6000, _mixture(*ORDER)),
            TRAINED_LENGTH,
            ORDER,
            ((128, 128), (2048, 64)),
            tuned=True,
        ),
        Experiment(
            "position",
            "position modulo 4, learnt at lengths 64 and 128",
            ("published", "harmonic", "window-rope", "minimind"),
            5,
            _train("position", 3000, _examples(POSITION)),
            TRAINED_LENGTH,
            (POSITION,),
            ((128, 512), (512, 512), (2048, 256)),
            tuned=True,
        ),
        Experiment(
            "text",
            "the standard library's source, learnt at length 256",
            (
                "harmonic-log",
                "published",
                "window-rope-log",
                "global-rope",
                "no-global",
                "minimind",
                "minimind-yarn",
                "minimind-ntk",
                "alibi",
                "nope-log",
            ),
            5,
            _train("text", 4000, {"source": "python-stdlib"}, seq_len=256),
            256,
            text=(256, 1024, 4096, 16384, 65536),
            tuned=True,
        ),
        Experiment(
            "far",
            "the models of `text`, in one window of 256k tokens",
            ("harmonic-log", "published", "no-global"),
            5,
            {},
            256,
            text=(8192, 262144),
            text_bytes=REPORTED,
            weights_of="text",
        ),
    )
}


def trained_as(experiment: Experiment) -> Experiment:
    """The experiment that trains what an experiment measures."""
    return EXPERIMENTS[experiment.weights_of] if experiment.weights_of else experiment
