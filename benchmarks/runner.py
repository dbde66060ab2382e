"""Runs cases one after the other, into a result of plain data. A case that fails says so, and the others go on."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.bars import judged
from benchmarks.case import Case, Work, reason
from benchmarks.growth import growth
from benchmarks.machine import described, load, matmul_peaks
from benchmarks.timing import STEADY, Samples, interleaved

FORMAT = 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run_all(
    cases: Sequence[Case],
    repeats: int,
    kind: str,
    said: Callable[[str], None],
    peak_size: int | None,
    minutes: float | None = None,
    before: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda result: None,
    measure: Callable[[Case, int], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """before: what an earlier run has measured, which is not measured again. save: called after every case.

    measure: of a case and the most repeats makes the case's result; `run_case`, unless something else is given.
    """
    measure = measure or run_case
    began = time.monotonic()
    result: dict[str, Any] = before or {
        "format": FORMAT,
        "kind": kind,
        "date": datetime.date.today().isoformat(),
        "machine": described(),
        "load": [],
        "repeats": repeats,
        **_peaks(peak_size),
        "minutes": 0.0,
        "cases": [],
    }
    spent, found = result["minutes"], {case["name"]: case for case in result["cases"] if case["status"] == "ok"}
    result["load"].append(load())
    for i, case in enumerate(cases, 1):
        if case.name in found:
            continue
        late = minutes is not None and time.monotonic() - began > 60 * minutes
        one = _left_out(case, minutes) if late else measure(case, repeats)
        found[case.name] = one
        said(f"[{i}/{len(cases)}] {one['name']}: {_short(one)} ({one['took']:.0f} s)")
        _sum_up(result, list(found.values()), spent + (time.monotonic() - began) / 60)
        save(result)
    result["load"].append(load())
    _sum_up(result, list(found.values()), spent + (time.monotonic() - began) / 60)
    save(result)
    return result


def _peaks(size: int | None) -> dict[str, Any]:
    """matmul_peak: the best product of each dtype that the machine offers; products: all of them."""
    found = {} if size is None else {name: matmul_peaks(dtype, size) for name, dtype in DTYPES.items()}
    best = {name: max(each.values(), key=lambda rate: rate["median"]) for name, each in found.items()}
    return {"matmul_peak": best, "products": found}


def _sum_up(result: dict[str, Any], cases: list[dict[str, Any]], minutes: float) -> None:
    result |= {"cases": cases, "growth": growth(cases), "minutes": round(minutes, 1)}
    result["bars"] = judged(result)


def run_case(case: Case, repeats: int, steady: float = STEADY) -> dict[str, Any]:
    """Build, check and measure one case. What it raises becomes its result."""
    began = time.monotonic()
    try:
        work = case.make()
        most = min(repeats, case.repeats or repeats)
        samples, left = interleaved(work.sides, most, case.budget, case.unit, steady)
        if next(iter(work.sides)) in left:
            raise TimeoutError(left[next(iter(work.sides))])
    except Exception as error:
        return failed(case, error, began)
    numbers = {name: _numbers(case, work, name, each) for name, each in samples.items()}
    found = {"status": "ok", "gate": work.gate, "notes": work.notes, "absent": {**work.absent, **left}}
    return {**_facts(case, began), **found, "sides": numbers}


def failed(case: Case, error: BaseException, began: float) -> dict[str, Any]:
    """began: by time.monotonic()."""
    return {**_facts(case, began), "status": "failed", "reason": reason(error), "sides": {}, "absent": {}}


def _facts(case: Case, began: float) -> dict[str, Any]:
    return {
        "name": case.name,
        "family": case.family,
        "series": case.series,
        "at": case.at,
        "unit": case.unit,
        "tokens": case.tokens,
        "took": round(time.monotonic() - began, 1),
    }


def _left_out(case: Case, minutes: float | None) -> dict[str, Any]:
    return failed(case, TimeoutError(f"left out after {minutes:g} minutes; --minutes allows more"), time.monotonic())


def _numbers(case: Case, work: Work, name: str, samples: Samples) -> dict[str, Any]:
    low, high = samples.quartiles
    numbers: dict[str, Any] = {"median": samples.median, "low": low, "high": high, "values": list(samples.values)}
    if case.unit == "seconds" and case.tokens:
        numbers["tokens_per_second"] = case.tokens / samples.median
    if name in work.flops:
        numbers["flops_per_second"] = work.flops[name] / samples.median
    return numbers


def _short(case: dict[str, Any]) -> str:
    if case["status"] != "ok":
        return str(case["reason"])
    (ours, first), *others = case["sides"].items()
    base = first["median"]
    unit = f"{base * 1e3:.2f} ms" if case["unit"] == "seconds" else f"{base / 2**20:.0f} MiB"
    return ", ".join([f"{ours} {unit}", *(f"{name} {each['median'] / base:.2f}x" for name, each in others)])
