"""A search and its confirmation, many times, where the truth is known.

    search:         K architectures of the table at random; the winner is the one with the best measured value
    confirmation:   S new seeds of the winner and of a baseline, on D documents that are drawn anew
                    y[s, d] = bytes[d] (truth + e[s] + g[d] + h[s, d])

truth: of the winner minus that of the baseline. e: what seeds do, drawn from the pairs of runs of the table, for each
of the two. g, h: what documents do, and seeds on documents, of two variants of the real confirmation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_confirm.documents import Documents
from benchmarks.search_grid.noise import seed_noise
from benchmarks.search_regret.problem import Entry, Problem
from benchmarks.search_regret.truth import Truth
from miniwin.evaluation.crossed import loss_difference
from miniwin.evaluation.intervals import Interval, verdict, wilson

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Confirmed:
    """truth: the winner's loss minus the baseline's. searched: what the search alone says it is. found: with the
    interval of the confirmation."""

    truth: float
    searched: float
    found: Interval


@dataclass(frozen=True)
class Kept:
    """held: how often the interval held the truth. better: how often it said `better`, and `wrong`: how often what it
    said was of the wrong sign. bias: of the search's own difference and of the confirmation's, in nats per byte. width:
    the median of the intervals."""

    held: Interval
    better: Interval
    wrong: Interval
    bias: tuple[float, float]
    search_wrong: Interval
    width: float


def confirmations(
    problem: Problem, truth: Truth, documents: Documents, seeds: int, tried: int, count: int
) -> list[Confirmed]:
    """count: how many. tried: architectures of each search."""
    rng = np.random.default_rng(20)
    entries = [entry for entry in problem.entries.values() if entry.complete]
    of_seeds, effects = _residuals(problem), documents.effects()
    units = documents.units
    found = []
    for _ in range(count):
        numbers = rng.permutation(len(entries))
        baseline, *searched = (entries[number] for number in numbers[: tried + 1])
        winner = min(searched, key=_measured)
        real = truth.values[id(winner.row)][0] - truth.values[id(baseline.row)][0]
        of_document, rest = effects[rng.integers(len(effects))]
        drawn = rng.integers(len(units), size=len(units))
        own = rest[rng.integers(len(rest), size=seeds)][:, drawn] * rng.choice((-1, 1), size=(seeds, 1))
        by_seed = (rng.choice(of_seeds, (seeds, 2)) * rng.choice((-1, 1), (seeds, 2))).sum(1)
        y = units[drawn] * (real + by_seed[:, None] + of_document[drawn] + own)
        interval = loss_difference(y, np.zeros_like(y), units[drawn])
        found.append(Confirmed(real, _measured(winner) - _measured(baseline), interval))
    return found


def kept(found: list[Confirmed]) -> Kept:
    """What came of the confirmations."""
    said = [verdict(one.found, lower_is_better=True) for one in found]
    right = ["better" if one.truth < 0 else "worse" for one in found]
    wrong = [word not in ("not distinguishable", truth) for word, truth in zip(said, right, strict=True)]
    return Kept(
        held=_share([not one.found.excludes(one.truth) for one in found]),
        better=_share([word == "better" for word in said]),
        wrong=_share(wrong),
        bias=(fmean(one.searched - one.truth for one in found), fmean(one.found.value - one.truth for one in found)),
        search_wrong=_share([(one.searched < 0) != (one.truth < 0) for one in found]),
        width=float(np.median([one.found.high - one.found.low for one in found])),
    )


def _share(happened: list[bool]) -> Interval:
    return wilson(sum(happened), len(happened))


def _measured(entry: Entry) -> float:
    return entry.rungs[-1][0]


def _residuals(problem: Problem) -> Array:
    """What a seed does to one architecture, from the pairs of the table: their differences, without what a seed does to
    all alike, scaled to the standard deviation of one run."""
    name = problem.objectives[0].name
    pairs = [(one, two) for one, two in problem.table.pairs() if one.status == two.status == "complete"]
    noise = seed_noise(problem.table, name)
    assert noise is not None, "the table has pairs of seeds"
    differences = np.array([one.value(name) - two.value(name) for one, two in pairs])
    rest = differences - differences.mean()
    return rest * (noise.value / math.sqrt(float(rest @ rest) / len(rest)))
