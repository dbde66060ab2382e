"""What a table says once the noise of seeds is taken off.

    truth = m + s (x - m),   s = v / (v + n / k)        Stein's shrinkage towards the mean m of all architectures

x: the mean of an architecture's k seeds at the end, without what a seed does to all architectures alike. n: the
variance that a seed makes, from the architectures with two seeds. v: the variance between architectures alone.
Otherwise the best of hundreds would be the luckiest of the good ones, and no search could come near it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, pvariance

from benchmarks.search_grid.noise import seed_noise
from benchmarks.search_grid.table import Row
from benchmarks.search_regret.problem import Problem
from miniwin.search.pareto import hypervolume

WITHIN = 0.01  # of the best value: near enough


@dataclass(frozen=True)
class Truth:
    """values: by the row's values as text; each to be minimized, so a negative number where more is better."""

    values: dict[int, tuple[float, ...]]  # by id of the row
    best: tuple[float, ...]
    worst: tuple[float, ...]
    noise: tuple[float, ...]  # standard deviation of one run's value
    whole: float  # the hypervolume of all architectures

    def near(self, row: Row) -> bool:
        """Whether an architecture is within 1 % of the best, by the first objective."""
        best = self.best[0]
        return self.values[id(row)][0] <= best + WITHIN * abs(best)

    def regret(self, row: Row) -> float:
        """How much worse than the best it is by the first objective, as a share of the best."""
        best = self.best[0]
        return (self.values[id(row)][0] - best) / abs(best) if best else self.values[id(row)][0]

    def volume(self, rows: list[Row]) -> float:
        """The hypervolume of these architectures, as a share of that of all. The reference is the worst value of each
        objective; each is scaled to its range."""
        return self._volume([self.values[id(row)] for row in rows]) / self.whole if self.whole else 1.0

    def _volume(self, points: list[tuple[float, ...]]) -> float:
        return hypervolume([_scaled(point, self.best, self.worst) for point in points], (1.0,) * len(self.best))


def truth(problem: Problem) -> Truth:
    rows = [entry.row for entry in problem.entries.values() if entry.complete]
    signs = [1.0 if direction == "minimize" else -1.0 for direction in problem.directions]
    columns, noises = [], []
    for objective, sign in zip(problem.objectives, signs, strict=True):
        found, noise = _without_noise(problem, rows, objective.name)
        columns.append([sign * value for value in found])
        noises.append(noise)
    points = list(zip(*columns, strict=True))
    best, worst = (tuple(map(of, columns)) for of in (min, max))
    whole = hypervolume([_scaled(point, best, worst) for point in points], (1.0,) * len(best))
    by_row = {id(row): point for row, point in zip(rows, points, strict=True)}
    return Truth(by_row, best, worst, tuple(noises), whole)


def _without_noise(problem: Problem, rows: list[Row], name: str) -> tuple[list[float], float]:
    """The metric of each row without noise, and the noise's standard deviation."""
    first = [row.value(name) for row in rows]
    if name in rows[0].costs:
        return first, 0.0
    pairs = [(one, two) for one, two in problem.table.pairs() if one.status == two.status == "complete"]
    interval = seed_noise(problem.table, name)
    noise = 0.0 if interval is None else interval.value
    shift = fmean(two.value(name) - one.value(name) for one, two in pairs) if pairs else 0.0
    second = {id(one): two.value(name) - shift for one, two in pairs}
    middle = fmean(first)
    between = max(pvariance(first) - noise**2, 0.0)
    found = []
    for row, value in zip(rows, first, strict=True):
        seeds = [value, second[id(row)]] if id(row) in second else [value]
        share = between / (between + noise**2 / len(seeds)) if between or noise else 1.0
        found.append(middle + share * (fmean(seeds) - middle))
    return found, noise


def _scaled(point: tuple[float, ...], best: tuple[float, ...], worst: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(
        (value - low) / (high - low) if high > low else 0.0 for value, low, high in zip(point, best, worst, strict=True)
    )
