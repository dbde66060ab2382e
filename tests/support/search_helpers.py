"""A search whose trials take a fraction of a second, for the tests of searches."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.study import Study
from miniwin.specs import load_search_spec

ATTENTION = {"num_heads": 2, "num_kv_heads": 1}
MLP = {"type": "swiglu", "intermediate_size": 16}
MODEL: dict[str, Any] = {
    "kind": "model",
    "format": 1,
    "name": "speck",
    "vocab_size": 256,
    "hidden_size": 16,
    "num_layers": 4,
    "pattern": "SG",
    "last": "G",
    "blocks": {
        "S": {
            "attention": {**ATTENTION, "window": 8, "position": {"type": "p-rope", "period": 16, "harmonic": True}},
            "mlp": MLP,
        },
        "G": {"attention": {**ATTENTION, "window": None, "position": {"type": "nope"}}, "mlp": MLP},
    },
}
TRAIN: dict[str, Any] = {
    "kind": "train",
    "format": 1,
    "name": "moment",
    "data": {"source": "text", "paths": ["text.txt"]},
    "seq_len": 32,
    "batch_size": 4,
    "tokens": 1536,
    "log_every": 1,
    "dtype": "float32",
}
SEARCH: dict[str, Any] = {
    "kind": "search",
    "format": 1,
    "name": "small",
    "base": "model.yaml",
    "train": "train.yaml",
    "baseline": "base.yaml",
    "variables": {
        "ratio": {"int": [1, 3]},
        "window": {"choice": [4, 8, 16]},
        "factor": {"choice": [1, 2]},
    },
    "set": {
        "pattern": "S * ratio + G",
        "blocks.S.attention.window": "window",
        "blocks.S.attention.position.period": "factor * window",
    },
    "objectives": ["minimize loss@64"],
    "constraints": ["window * factor <= 16"],
    "budget": {"trials": 6},
    "sampler": {"type": "tpe", "startup": 4},
    "rungs": [0.25, 0.5],
    "report_lengths": [32, 64],
    "eval_tokens": 256,
    "rung_eval_tokens": 128,
}


def write_search(folder: Path, train: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write the YAML files of the small search, with changes. Returns the path of search.yaml."""
    draw = random.Random(0)
    words = ["def", "return", "if", "else", "for", "while", "class", "import", "self", "none", "true", "print", "value"]
    lines = (" ".join(draw.choice(words) for _ in range(10)) for _ in range(400))
    (folder / "text.txt").write_text("\n".join(lines))
    baseline = {**MODEL, "name": "plain", "pattern": "G", "blocks": {"G": MODEL["blocks"]["G"]}}
    for name, data in {"model": MODEL, "base": baseline, "train": {**TRAIN, **(train or {})}}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data))
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump({**SEARCH, **changes}))
    return path


def make(folder: Path, url: str | None = None, out: str = "study", **changes: Any) -> Study:
    """A study of the small search with changes, without a baseline."""
    spec = load_search_spec(write_search(folder, baseline=None, **changes))
    return create_study(spec, folder, out=folder / out, storage=url)


def change(study: Path, **values: Any) -> None:
    """Change a value in the record of a study folder."""
    about = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**about, **values}))


def tried(study: Study, count: int = 1) -> Study:
    """Record so many finished trials, without training."""
    for _ in range(count):
        claim = take_work(study, "0")
        assert isinstance(claim, Claim)
        claim.outcome.values = {objective.name: 1.0 for objective in study.spec.parsed_objectives}
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return study
