"""Figures with intervals over seeds, from the result files. Differences are paired by seed.

A result with a learning rate that the tuning did not choose is not counted, nor is a training that diverged.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import results
from benchmarks.claims.experiments import EXPERIMENTS
from benchmarks.claims.running import fits
from benchmarks.claims.speed import NAME as SPEED
from benchmarks.claims.speed import ROUNDS
from miniwin.evaluation.intervals import Interval, Worst, difference, mean, share_over_seeds, slope, wilson, worst

Values = dict[int, float]  # by seed


def _rows(experiment: str, variant: str, folder: Path) -> dict[int, dict[str, Any]]:
    seeds = ROUNDS if experiment == SPEED else EXPERIMENTS[experiment].seeds
    found = results.of_experiment(experiment, (variant,), seeds, folder)
    return {
        result["seed"]: result
        for result in found
        if experiment == SPEED or (result.get("diverged") is None and fits(EXPERIMENTS[experiment], result, folder))
    }


def shares(experiment: str, variant: str, length: int, task: str, folder: Path) -> Values:
    """The share of right answers of each seed."""
    found = {}
    for seed, result in _rows(experiment, variant, folder).items():
        for row in result["tasks"]:
            if (row["task"], row["length"]) == (task, length):
                found[seed] = sum(map(int, row["right"])) / (row["examples"] * row["answers"])
    return found


def share(experiment: str, variant: str, task: str, length: int, folder: Path) -> tuple[Interval, Worst] | None:
    """The mean over seeds, and the worst of them; None where nothing was measured."""
    found = shares(experiment, variant, length, task, folder)
    if not found:
        return None
    asked = dict(EXPERIMENTS[experiment].lengths)[length]  # examples: answers of one example are alike
    values = list(found.values())
    return share_over_seeds(values, asked), worst(values)


def share_difference(
    experiment: str, first: tuple[str, int], other: tuple[str, int], task: str, folder: Path
) -> Interval | None:
    """A share minus another, each of (variant, length), paired by seed.

    The interval is that of the differences of seeds, and not narrower than that of the answers of all seeds together.
    """
    one, two = (shares(experiment, *which, folder=folder, task=task) for which in (first, other))
    differences = paired(one, two)
    if not len(differences):
        return None
    over = mean(differences)
    examples = dict(EXPERIMENTS[experiment].lengths)
    (p, n), (q, m) = (
        (float(np.mean([values[seed] for seed in one.keys() & two.keys()])), len(differences) * examples[length])
        for values, length in ((one, first[1]), (two, other[1]))
    )
    counted = difference(wilson(p * n, n), wilson(q * m, m))
    if over.n < 2:
        return over
    low, high = (counted.low, counted.high) if math.isinf(over.low) else (over.low, over.high)
    return Interval(over.value, min(low, counted.low), max(high, counted.high), over.n)


def share_fall(experiment: str, variant: str, task: str, length: int, other: int, folder: Path) -> Interval | None:
    """How much less is right at a length than at another."""
    return share_difference(experiment, (variant, other), (variant, length), task, folder)


def bits(variant: str, length: int, folder: Path, experiment: str = "text") -> Values:
    """Bits per byte of each seed at a length."""
    found = _rows(experiment, variant, folder)
    return {s: row["bits"] for s, result in found.items() for row in result["text"] if row["length"] == length}


def paired(first: Values, other: Values) -> NDArray[np.float64]:
    """The differences of the seeds that both have."""
    return np.array([first[seed] - other[seed] for seed in sorted(first.keys() & other.keys())])


def perplexity_ratio(variant: str, other: str, length: int, folder: Path) -> Interval | None:
    """Perplexity per byte of a variant, divided by that of another: 0.8 is 20 % below."""
    differences = paired(bits(variant, length, folder), bits(other, length, folder))
    return mean(differences).through(lambda value: 2.0**value) if len(differences) else None


def bits_change(variant: str, length: int, other: int, folder: Path, experiment: str = "text") -> Interval | None:
    """Bits per byte at a length minus those at another, of the same text."""
    differences = paired(bits(variant, length, folder, experiment), bits(variant, other, folder, experiment))
    return mean(differences) if len(differences) else None


def variance_ratio(variant: str, other: str, length: int, folder: Path) -> Interval | None:
    """The variance of the losses of the pieces of one long text, divided by that of another variant."""

    def logs(name: str) -> Values:
        found = _rows("text", name, folder)
        return {
            seed: math.log(float(np.var(row["pieces"], ddof=1)))
            for seed, result in found.items()
            for row in result["text"]
            if row["length"] == length
        }

    differences = paired(logs(variant), logs(other))
    return mean(differences).through(math.exp) if len(differences) else None


def times(variant: str, what: str, folder: Path) -> dict[int, list[float]]:
    """`prefill_seconds`, `decode_seconds` or `forward_flops` of each round, by length."""
    found: dict[int, list[float]] = {}
    for result in _rows(SPEED, variant, folder).values():
        for row in result["speeds"]:
            found.setdefault(row["length"], []).append(row[what])
    return found


def exponent(variant: str, what: str, folder: Path) -> Interval | None:
    """The slope of log time over log length: 1 is linear, 2 quadratic. The mean over rounds."""
    rounds = [
        slope(
            np.log([row["length"] for row in result["speeds"]]), np.log([row[what] for row in result["speeds"]])
        ).value
        for result in _rows(SPEED, variant, folder).values()
    ]
    return mean(rounds) if rounds else None
