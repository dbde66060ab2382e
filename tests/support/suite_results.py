"""Results of a suite as the runner leaves them, with made-up models: good or bad at length, alike or not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import Interval
from miniwin.evaluation.suite.result import SuiteModel, SuiteResult, SuiteRow, key_of
from miniwin.specs.objectives import NATS

TRAINED = 128
LENGTHS = (128, 512, 2048)


def made_up(ref: str = "miniwin-1m@1.0.0", *, skill: float = 0.9, loss: float = 1.4, seed: int = 0) -> SuiteResult:
    """skill: the share of answers right. loss: nats per byte. seed: of the suite: other examples and documents."""
    own = np.random.default_rng([seed, round(1000 * skill), round(1000 * loss)])
    texts = np.random.default_rng(seed)
    hard, sizes = texts.normal(0, 0.15, 24), texts.integers(3000, 5000, 24).astype(float)
    rows: list[SuiteRow] = []
    for task, chance, each in (("recall", 0.0625, 1), ("needle", 0.1, 1), ("last-write", 0.25, 4)):
        for length in LENGTHS:
            p = min(1.0, max(chance, skill - 0.1 * math.log2(length / TRAINED) * (1.2 - skill)))
            rows += _task(own, task, length, p, chance, each, {"seed": seed, "split": "test", "task": {"type": task}})
    for length in LENGTHS:
        nats = sizes * (loss + hard + 0.02 * math.log2(length / TRAINED) * (1.5 - skill) + own.normal(0, 0.01, 24))
        rows.append(_loss(length, nats, sizes, {"seed": seed, "split": "test", "data": {"source": "python-stdlib"}}))
    for length in LENGTHS:
        seconds = np.sort(own.lognormal(math.log(length / 20000), 0.1, 7))
        found = Interval(float(seconds[3]), float(seconds[0]), float(seconds[6]), 7)
        setting = {"device": "cpu", "repeats": 7}
        samples: Any = {"seconds": seconds.tolist()}
        rows.append(row("prefill_seconds", length, found, "repetitions", "seconds", "lower", setting, samples))
    rows.append(row("prefill_exponent", None, Interval(1.02, 0.98, 1.06, 7), "repetitions", "exponent", "lower", {}))
    for length in LENGTHS:
        count = float(length * 512)
        rows.append(
            row(
                "cache_bytes", length, Interval(count, count, count, 1), "exact", "bytes", "lower", {"dtype": "float32"}
            )
        )
    rows.append(
        SuiteRow(
            key="copy@128", measure="copy", length=128, times=1.0, value=None, low=None, high=None, n=0, of="examples",
            unit="share", chance=0.01, better="higher", note="no room: an example takes at least 200 bytes",
        )
    )  # fmt: skip
    return SuiteResult(
        suite="quick",
        spec={"kind": "suite", "format": 1, "name": "quick", "lengths": ["1x", "4x", "16x"], "seed": seed, "cache": {}},
        model=SuiteModel(ref=ref, hash="ab" * 32, weights="cd" * 32, parameters=1_180_000, trained_length=TRAINED),
        device="cpu",
        dtype="float32",
        version="0.1.0",
        date="2026-11-30T03:00:00+00:00",
        machine={"cpu": "AMD EPYC", "cores": 2},
        data={"source": "python-stdlib"},
        seconds=83.0,
        rows=rows,
    )


def row(
    measure: str, length: int | None, found: Interval, of: str, unit: str, better: Any, setting: dict[str, Any],
    samples: Any = None, **more: Any,
) -> SuiteRow:  # fmt: skip
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return SuiteRow(
        key=key_of(measure, length),
        measure=measure,
        length=length,
        times=None if length is None else length / TRAINED,
        value=found.value,
        low=low,
        high=high,
        n=found.n,
        of=of,
        unit=unit,
        better=better,
        setting=setting,
        samples=samples or {},
        **more,
    )


def numbers(found: Interval) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _task(
    rng: np.random.Generator, task: str, length: int, p: float, chance: float, each: int, setting: dict[str, Any]
) -> list[SuiteRow]:
    right, asked = rng.binomial(each, p, 48), np.full(48, each)
    nats = asked * rng.gamma(2.0, -math.log(min(p, 0.99)) / 2 + 0.01, 48)
    samples: dict[str, Any] = {"asked": asked.tolist(), "right": right.tolist(), "nats": nats.tolist()}
    detail: dict[str, Any] = {}
    if task == "needle":
        depths = np.random.default_rng([setting["seed"], length]).uniform(0, 0.8, 48)  # of the examples
        samples["depth"] = depths.tolist()
        inside = [(n, (depths >= n / 5) & (depths < (n + 1) / 5)) for n in range(5)]
        detail["depths"] = [
            {"start": n / 5, "end": (n + 1) / 5, **numbers(intervals.share(right[here], asked[here]))}
            for n, here in inside
            if here.any()
        ]
    share, cost = intervals.share(right, asked), intervals.loss(nats, asked)
    fewer: Any = {name: samples[name] for name in ("asked", "nats")}
    guess = -math.log(chance)
    setting = {**setting, "length": length}
    return [
        row(task, length, share, "examples", "share", "higher", setting, samples, chance=chance, detail=detail),
        row(f"{task}{NATS}", length, cost, "examples", "nats/answer", "lower", setting, fewer, chance=guess),
    ]


def _loss(length: int, nats: np.ndarray, sizes: np.ndarray, setting: dict[str, Any]) -> SuiteRow:
    edges = [0, *(n for n in (128, 256, 512, 1024, 2048) if n <= length)]
    part = np.diff(edges) / length
    buckets = [
        {"start": a, "end": b, **numbers(_bits(nats * share * (1.1 - 0.02 * n), sizes * share))}
        for n, (a, b, share) in enumerate(zip(edges, edges[1:], part, strict=False))
    ]
    samples: Any = {"nats": nats.tolist(), "bytes": sizes.tolist()}
    setting = {**setting, "length": length}
    found = _bits(nats, sizes)
    detail = {"buckets": buckets}
    return row("bits_per_byte", length, found, "documents", "bits/byte", "lower", setting, samples, detail=detail)


def _bits(nats: np.ndarray, sizes: np.ndarray) -> Interval:
    return intervals.loss(nats, sizes).through(lambda value: value / math.log(2))
