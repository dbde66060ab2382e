"""What is kept of an adapted model: its adapt.json, and times of decoding."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

import miniwin
from miniwin.blocks import Cache
from miniwin.generation.decode_step import fastest_step
from miniwin.inference import evaluating
from miniwin.language_model import LanguageModel
from miniwin.provenance import machine
from miniwin.specs import UserError

RESULTS = Path(__file__).parent / "results"
TOKENS = 16  # decoded in one go


def take(folder: Path) -> Path:
    """Keep what a folder of `miniwin adapt` measured."""
    try:
        result = json.loads((folder / "adapt.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: no adapt.json that can be read ({error}); give a folder of `miniwin adapt`"
        ) from None
    return _write(folder.name, result)


def _write(name: str, result: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def time_decoding(model: str, folder: Path, length: int, repeats: int) -> Path:
    """Milliseconds of a token at this many tokens in the cache: original and adapted in turns, on the same machine.

    Bytes of both caches as they are held. The tokens in the cache are any: time does not depend on them.
    """
    path = RESULTS / f"{folder.name}.json"
    if not path.is_file():
        raise UserError(f"{path}: take the folder's result first, --take {folder}")
    models = {"original": miniwin.load(model), "chosen": miniwin.load(folder)}
    caches = {name: _filled(one, length) for name, one in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, one in models.items():
            found[name].append(_milliseconds(one, caches[name]))
    result = json.loads(path.read_text(encoding="utf-8"))
    result["decode"] = {
        "length": length,
        "milliseconds": {name: [round(one, 3) for one in times[1:]] for name, times in found.items()},
        "cache_bytes": {name: cache.nbytes for name, cache in caches.items()},
        "predicted_bytes": {name: one.spec.cache_bytes(length) for name, one in models.items()},
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }
    return _write(folder.name, result)


def _filled(model: LanguageModel, length: int) -> Cache:
    """A cache with so many tokens that were never computed: keys and values are zeros."""
    cache = model.new_cache(1)
    cache.reserve(length + TOKENS)
    with evaluating(model):
        model(torch.zeros(1, 1, dtype=torch.int64), cache=cache)
    for part in cache.parts:
        for tensor in (*part.stored, *(() if part.first is None else part.first.stored)):
            tensor.zero_()
    cache.set_length(length)
    return cache


def _milliseconds(model: LanguageModel, filled: Cache) -> float:
    """Of a token, the mean of some, in a copy of the cache."""
    ids = torch.arange(TOKENS).unsqueeze(0)
    with evaluating(model):
        cache = filled.clone()
        steps = fastest_step(model, cache, TOKENS, keep=False)  # as in generation
        began = time.perf_counter()
        for at in range(TOKENS):
            new = ids[:, at : at + 1]  # (1, 1)
            if steps is None:
                model(new, cache=cache, logits_to_keep=1)
            else:
                steps.step(new)
        return (time.perf_counter() - began) / TOKENS * 1000
