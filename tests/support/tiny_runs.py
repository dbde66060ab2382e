"""A model, a text and a train spec so small that a whole training run takes a second. Used by the training tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from miniwin.specs import ModelSpec, TrainSpec, parse_spec

TASKS = [
    {"type": "last-write", "num_keys": 2, "writes": 2},
    {"type": "recall", "num_pairs": 2, "num_queries": 2},
    {"type": "which-first"},
]
# Text and three tasks, of two lengths.
MIXTURE: dict[str, Any] = {
    "data": {
        "source": "mixture",
        "parts": [
            {"weight": 0.7, "data": {"source": "text", "paths": ["text.txt"]}},
            *({"weight": 0.1, "data": {"source": "examples", "task": task}} for task in TASKS),
        ],
    },
    "seq_len": [32, 64],
    "seq_len_weights": [2, 1],
}


def tiny_model(**changes: Any) -> ModelSpec:
    """Two layers, one local and one global, about 12 thousand parameters."""
    shared = {"num_heads": 2, "num_kv_heads": 1}
    mlp = {"type": "swiglu", "intermediate_size": 32}
    local = {**shared, "window": 8, "position": {"type": "p-rope", "period": 16, "harmonic": True}}
    globally = {**shared, "window": None, "position": {"type": "nope"}}
    spec = {
        "kind": "model",
        "format": 1,
        "name": "tiny-test",
        "vocab_size": 256,
        "hidden_size": 32,
        "num_layers": 2,
        "pattern": "SG",
        "blocks": {"S": {"attention": local, "mlp": mlp}, "G": {"attention": globally, "mlp": mlp}},
    }
    return parse_spec({**spec, **changes}, "model")


def tiny_train(**changes: Any) -> TrainSpec:
    """30 steps of 4 sequences of 32 tokens from `text.txt`, with a line of metrics for each."""
    spec = {
        "kind": "train",
        "format": 1,
        "name": "tiny-test",
        "data": {"source": "text", "paths": ["text.txt"]},
        "seq_len": 32,
        "batch_size": 4,
        "tokens": 30 * 4 * 32,
        "optimizer": {"lr": 1e-2},
        "log_every": 1,
        "dtype": "float32",  # the same on every machine
    }
    return parse_spec({**spec, **changes}, "train")


def write_text(folder: Path, seed: int = 0) -> Path:
    """About 20 kB of sentences from a small vocabulary: enough structure for the loss to fall."""
    rng = random.Random(seed)
    words = ["the", "window", "sees", "no", "more", "than", "its", "period", "and", "every", "token", "waits"]
    path = folder / "text.txt"
    path.write_text("".join(rng.choice(words) + rng.choice([" ", " ", " ", ".\n"]) for _ in range(4000)))
    return path


def train_there(out: str, spec: str, threads: int, from_: str | None = None) -> None:
    """Trains the tiny model in `out`: what processes do that tests kill."""
    import torch

    from miniwin.training.launch import train

    torch.set_num_threads(threads)
    Path("spec.yaml").write_text(spec)
    train(tiny_model(), "spec.yaml", out=out, from_=from_, progress=False, tracking="off", device="cpu")


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Bit for bit, through dictionaries, lists and tensors."""
    import torch

    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}[{place}]")
    else:
        assert one == other, path
