"""The runs of the plan. Each is trained and measured once; what is done is found in the work folder."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

import miniwin
from benchmarks.distill_small.plan import (
    ARMS,
    BATCH,
    LENGTH,
    MEASURED,
    MORE,
    NOVELS,
    RATES,
    SEEDS,
    TOKENS,
    UNSEEN,
    model,
    train,
)
from benchmarks.machine import described
from miniwin.data import Corpus, loader, prepare
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.files.hashing import sha256_file
from miniwin.files.writing import write_json
from miniwin.language_model import LanguageModel
from miniwin.machine.matmul_choice import chosen
from miniwin.runs import read_run
from miniwin.specs.data import TextData
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.training.distilling.teacher import Teacher
from miniwin.training.launch import train as run
from miniwin.training.origin import find_origin

WAIT_SECONDS = 5.0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Places:
    """Where the teacher, the novels and the work are."""

    teacher: Path
    corpora: Path
    work: Path

    @property
    def states(self) -> Path:
        return self.work / "states"

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(str(self.teacher / "tokenizer.json"))


def texts(places: Places) -> dict[str, np.ndarray]:
    """Token ids of each text that is measured, by its name."""
    corpus = _corpus(places)
    unseen = TextData(source="text", paths=(str(places.corpora / UNSEEN),), valid_fraction=0.5)
    assert corpus.test is not None
    return {
        "valid": corpus.valid,
        "test": corpus.test,
        "unseen": prepare(unseen, places.tokenizer(), progress=False).train,
    }


def one(arm: str, rate: float, seed: int, places: Places) -> dict[str, Any]:
    """Train and measure a run, or read what an earlier call found."""
    name = f"{arm}-{rate:g}-{seed}"
    file = places.work / "found" / f"{name}.json"
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    spec = train(arm, rate, seed, places.teacher, places.corpora, places.states)
    began = time.process_time()
    result = run(model(), spec, out=places.work / "runs" / name, progress=False, tracking="off", device="cpu")
    if result.status == "interrupted":
        raise KeyboardInterrupt(result.reason)
    seconds = time.process_time() - began
    found = {
        "arm": arm,
        "rate": rate,
        "seed": seed,
        "status": result.status,
        "tokens": result.tokens,
        "parameters": result.parameters,
        "data": result.data_fingerprint,
        "cpu_seconds": round(seconds, 1),
        "loss": result.final_loss,
        **{key: read_run(result.folder)[key] for key in ("code", "started")},
        "bits_per_byte": measure(miniwin.load(result.folder), places) if result.status == "complete" else None,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    _say(f"{name}: {found['bits_per_byte']}, {seconds:.0f} s")
    return found


def measure(measured: LanguageModel, places: Places) -> dict[str, float]:
    """Bits per byte on each text."""
    every = {name: min(MEASURED, len(ids) - 1) for name, ids in texts(places).items()}
    found = {}
    for name, ids in texts(places).items():
        found[name] = position_losses(measured, ids, LENGTH, every[name]).nats_per_byte / math.log(2)
    return found


def together(asked: Sequence[tuple[str, float, int]], places: Places) -> list[dict[str, Any]]:
    """What was found of several runs: arm, rate and seed of each. Other processes may be at some of them."""
    (places.work / "locks").mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, float, int], dict[str, Any]] = {}
    while len(found) < len(asked):
        before = len(found)
        for each in asked:
            if each in found:
                continue
            with suppress(Timeout), FileLock(places.work / "locks" / "{}-{:g}-{}".format(*each), timeout=0):
                found[each] = one(*each, places)
        if len(found) == before:
            time.sleep(WAIT_SECONDS)
    return [found[each] for each in asked]


def tuned(arm: str, places: Places) -> float:
    """The rate with the fewest bits per byte on validation text, with the first seed."""
    rates = list(RATES)
    for _ in range(MORE + 1):
        found = together([(arm, rate, SEEDS[0]) for rate in rates], places)
        scores = {rate: _score(each) for rate, each in zip(rates, found, strict=True)}
        best = min(scores, key=lambda rate: scores[rate])
        if best not in (min(rates), max(rates)):
            break
        rates.append(best / 2 if best == min(rates) else best * 2)
    return best


def arm_of(arm: str, places: Places) -> None:
    """All runs of an arm."""
    rate = tuned(arm, places)
    together([(arm, rate, seed) for seed in SEEDS], places)


def states(places: Places) -> None:
    """What the teacher says of all rows of all seeds, on the disk. The tuning of `kl` begins with the first seed's."""
    for seed in reversed(SEEDS):
        spec = train("kl", RATES[0], seed, places.teacher, places.corpora, places.states)
        teacher = Teacher(find_origin(places.teacher), spec, model().num_layers, CPU, chosen()).begin(spec.steps)
        rows = loader(
            _corpus(places).rows, start_step=0, num_steps=spec.steps, batch_size=BATCH, seq_len=LENGTH, seed=seed
        )
        began = time.process_time()
        for inputs, _ in rows:
            teacher.lesson(inputs, None)
        _say(f"states of seed {seed}: {time.process_time() - began:.0f} s")


def results(places: Places) -> dict[str, Any]:
    """All that the page says."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((places.work / "found").glob("*-*.json"))]
    file = places.work / "teacher.json"
    if not file.is_file():
        write_json(file, measure(miniwin.load(places.teacher), places))
    return {
        "machine": described(),
        "teacher": {"sha256": find_origin(places.teacher).sha256, "bits_per_byte": json.loads(file.read_text())},
        "texts": {name: sha256_file(places.corpora / name) for name in (*NOVELS, UNSEEN)},
        "tokens": TOKENS,
        "measured": MEASURED,
        "rates": {arm: tuned(arm, places) for arm in ARMS},
        "runs": runs,
    }


def _corpus(places: Places) -> Corpus:
    spec = train("text", RATES[0], SEEDS[0], places.teacher, places.corpora, places.states)
    return prepare(spec.data, places.tokenizer(), progress=False)


def _score(found: dict[str, Any]) -> float:
    return float("inf") if found["bits_per_byte"] is None else float(found["bits_per_byte"]["valid"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
