"""What is trained, on what, and which learning rates are tried.

Set down before the first of the runs that are reported. A run of a larger budget was begun before them and stopped
unmeasured, since it would have taken too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniwin.specs import ModelSpec, TrainSpec, parse_spec

ARMS = ("text", "kl")
SEEDS = (0, 1, 2)
RATES = (2e-3, 4e-3, 8e-3)  # where the best is the first or the last, its other neighbour is tried too
MORE = 1  # times
TOKENS = 192_512
LENGTH, BATCH = 256, 4
NOVELS = ("novel-dickens-bleak-house.txt", "novel-eliot-middlemarch.txt")
UNSEEN = "novel-melville-moby-dick.txt"
MEASURED = 32_768  # tokens predicted of each text, in windows of LENGTH
DISTILL: dict[str, Any] = {"loss": "kl", "temperature": 1.0, "weight": 0.5}


def model() -> ModelSpec:
    """Eight layers, every fourth of them global; the vocabulary is the teacher's."""
    heads = {"num_heads": 5, "num_kv_heads": 1, "head_dim": 32}
    mlp = {"type": "swiglu", "intermediate_size": 432}
    local = {**heads, "window": 64, "position": {"type": "p-rope", "period": 128, "harmonic": True}}
    spec = {
        "kind": "model",
        "format": 1,
        "name": "small-student",
        "vocab_size": 49_152,
        "hidden_size": 160,
        "num_layers": 8,
        "pattern": "SSSG",
        "blocks": {
            "S": {"attention": local, "mlp": mlp},
            "G": {"attention": {**heads, "window": None, "position": {"type": "nope"}}, "mlp": mlp},
        },
    }
    return parse_spec(spec, "model")


def train(arm: str, rate: float, seed: int, teacher: Path, corpora: Path, states: Path) -> TrainSpec:
    """One run. The ends of the novels are kept back: the last for validation, what is before it for the test."""
    distill = {"teacher": str(teacher), "cache": str(states), **DISTILL}
    spec = {
        "kind": "train",
        "format": 1,
        "name": f"{arm}-{rate:g}-{seed}",
        "data": {
            "source": "text",
            "paths": [str(corpora / name) for name in NOVELS],
            "valid_fraction": 0.1,
            "test_fraction": 0.1,
        },
        "tokenizer": str(teacher / "tokenizer.json"),
        "seq_len": LENGTH,
        "batch_size": BATCH,
        "tokens": TOKENS,
        "optimizer": {"lr": rate},
        "dtype": "bfloat16",
        "seed": seed,
        **({"distill": distill} if arm == "kl" else {}),
    }
    return parse_spec(spec, "train")
