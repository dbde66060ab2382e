"""What two seeds of one architecture say of the noise, and what a rung says of the end.

Seeds share the order of the data and the examples between architectures, so what a seed does to all of them alike is no
noise: only what it does to one against another is.

    noise = standard deviation of (first seed - second seed) / sqrt(2)
"""

from __future__ import annotations

import math

from benchmarks.search_grid.table import Row, Table
from miniwin.evaluation.intervals import Interval, spread
from miniwin.evaluation.ranks import rank_correlation


def metrics(table: Table) -> list[str]:
    """The metrics of the table, in its order."""
    return list(dict.fromkeys(name for row in table.rows for rung in row.rungs for name in rung.metrics))


def rung_count(table: Table) -> int:
    return max((len(row.rungs) for row in table.rows), default=0)


def whole(table: Table, seed: int = 0) -> list[Row]:
    """The runs that came to the end."""
    return [row for row in table.of_seed(seed) if row.status == "complete"]


def seed_noise(table: Table, metric: str, rung: int = -1) -> Interval | None:
    """The standard deviation of one run's metric that its seed makes. None where no architecture has two seeds."""
    differences = [
        first.value(metric, rung) - second.value(metric, rung)
        for first, second in table.pairs()
        if first.status == second.status == "complete"
    ]
    return spread(differences).through(lambda value: value / math.sqrt(2)) if len(differences) > 1 else None


def between(table: Table, metric: str, rung: int = -1) -> Interval | None:
    """The standard deviation between architectures, their noise included. None where there are fewer than two."""
    values = [row.value(metric, rung) for row in whole(table)]
    return spread(values) if len(values) > 1 else None


def rung_correlation(table: Table, metric: str, rung: int) -> Interval | None:
    """The rank correlation of a metric at a rung with itself at the end."""
    rows = whole(table)
    return rank_correlation([row.value(metric, rung) for row in rows], [row.value(metric) for row in rows])


def seed_correlation(table: Table, metric: str) -> Interval | None:
    """The rank correlation of a metric at the end between the two seeds: no rung can be expected to do better."""
    pairs = [(first, second) for first, second in table.pairs() if first.status == second.status == "complete"]
    return rank_correlation([first.value(metric) for first, _ in pairs], [second.value(metric) for _, second in pairs])
