"""What the result files say: medians and bands over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_regret import results
from benchmarks.search_regret.cases import PRUNERS, SAMPLERS, WORKERS, Case, Question

LOW, MIDDLE, HIGH = 10, 50, 90  # percent of the seeds


@dataclass(frozen=True)
class Summary:
    """trainings: until the aim, in whole trainings, at 10, 50 and 90 percent of the seeds; infinite where so many did
    not get there. curve: the same of the curve, (3, points); NaN where so many had nothing yet; None where the
    searches ended at their aim."""

    seeds: int
    reached: int
    trainings: tuple[float, float, float]
    curve: np.ndarray[Any, Any] | None


def summary(case: Case, table: str, folder: Path) -> Summary | None:
    """None where there is no result."""
    found = results.read(case, table, folder)
    if found is None:
        return None
    searches = found["searches"]
    needed = [math.inf if one["trainings"] is None else one["trainings"] for one in searches]
    at = np.percentile(needed, (LOW, MIDDLE, HIGH), method="nearest")
    reached = sum(map(math.isfinite, needed))
    curve = _bands(case, [one["curve"] for one in searches]) if case.whole_curve else None
    return Summary(len(searches), reached, tuple(at.tolist()), curve)


def _bands(case: Case, curves: list[list[float | None]]) -> np.ndarray[Any, Any]:
    worst = math.inf if len(case.question.objectives) == 1 else -math.inf  # nothing yet is worse than anything
    known = np.array([[worst if value is None else value for value in curve] for curve in curves])
    bands = np.percentile(known, (LOW, MIDDLE, HIGH), axis=0, method="nearest")
    return np.where(np.isfinite(bands), bands, np.nan)


def summaries(question: Question, workers: int, table: str, folder: Path) -> dict[tuple[str, str], Summary]:
    """By sampler and pruner, those that there are."""
    found = {}
    for sampler in SAMPLERS:
        for pruner in PRUNERS:
            one = summary(Case(question, sampler, pruner, workers), table, folder)
            if one is not None:
                found[sampler.name, pruner] = one
    return found


def all_summaries(question: Question, table: str, folder: Path) -> dict[int, dict[tuple[str, str], Summary]]:
    """By the number of workers."""
    return {workers: summaries(question, workers, table, folder) for workers in WORKERS}
