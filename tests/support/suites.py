"""A suite, a model and a corpus so small that all parts are measured in a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tiny import spec

import miniwin
from miniwin.data import Corpus
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.run import run_suite
from miniwin.language_model import LanguageModel
from miniwin.specs import SuiteSpec, parse_spec

SIZES = (40, 300, 10, 170, 129, 300, 200)  # tokens of the documents; a separator follows each
SMALL: dict[str, Any] = {
    "kind": "suite",
    "format": 1,
    "name": "small",
    "lengths": ["1x", "4x"],
    "examples": 6,
    "tasks": [{"task": {"type": "recall", "num_pairs": 2, "num_queries": 2}}, {"task": {"type": "needle"}}],
    "loss": {"documents": 3},
    "shift": {"shifts": [1, 5], "documents": 3},
    "speed": {"repeats": 6, "decode_tokens": 2},
    "cache": {},
}
TRAINED = 32


def small(**changes: Any) -> SuiteSpec:
    made = parse_spec({**SMALL, **changes}, "suite")
    assert isinstance(made, SuiteSpec)
    return made


def model(seed: int = 1) -> LanguageModel:
    """Random weights, large enough that the loss depends on the context."""
    made = miniwin.build(spec(), seed=seed).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return made


def corpus(seed: int = 0) -> Corpus:
    rng = np.random.default_rng(seed)
    texts = [np.append(rng.integers(1, 256, size), 0) for size in SIZES]
    ids = np.concatenate(texts).astype(np.uint16)
    return Corpus(train=ids[:50], valid=ids, fingerprint=f"{seed}" * 64, info={"source": "random"})


def measure(suite: SuiteSpec, **options: Any) -> SuiteResult:
    return run_suite(model(), suite, corpus(), trained_length=TRAINED, **options)


def untimed(result: SuiteResult) -> dict[str, Any]:
    """The result without what is timed, when it was, and how long it took."""
    data = result.to_dict()
    rows = [row for row in data["rows"] if row["unit"] not in ("seconds", "exponent")]
    return {**data, "rows": rows, "date": None, "seconds": None}


def measure_there(out: str) -> None:
    """Measures the small suite in `out`: what a process does that a test kills."""
    torch.set_num_threads(1)
    measure(small(), out=out)
