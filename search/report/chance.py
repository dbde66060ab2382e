"""Whether a variable made a difference at all: the test of Kruskal and Wallis, by permutation.

The trials are ranked by their value, and put into groups by what they have of the variable, at most four of a number.
If the variable does not matter, ranks fall into groups as by lot. How far the means of the groups are apart

    sum over groups  (sum of the ranks in the group)^2 / size of the group

is compared with what it is when the ranks are dealt out anew, 400 times. It needs no other assumption.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniwin.evaluation.ranks import ranks
from miniwin.search.report.ped_anova import Array, Column

DEALS = 400
GROUPS = 4
SURE = 0.95


def by_chance(variables: Sequence[Sequence[Column]], costs: Array) -> list[bool]:
    """Of each variable, whether the differences between its values are such as chance makes.

    variables: the columns of each, one for each place of a placement. costs: of the trials, (n,).
    """
    chance = np.random.default_rng(0)
    around = ranks(costs) - (len(costs) + 1) / 2  # around 0, which keeps the sums exact
    dealt = np.stack([around, *(chance.permutation(around) for _ in range(DEALS))])
    found = []
    for columns in variables:
        apart = sum((_apart(column, dealt) for column in columns), np.zeros(DEALS + 1))
        found.append(bool((apart[1:] >= apart[0] * (1 - 1e-12)).mean() > 1 - SURE))
    return found


def _apart(column: Column, ranks: Array) -> Array:
    """The statistic of each row of ranks, (deals,)."""
    groups = _groups(column)
    shown = np.zeros((len(groups), groups.max() + 1))
    shown[np.arange(len(groups)), groups] = 1.0
    sums: Array = (ranks @ shown) ** 2 / np.maximum(shown.sum(axis=0), 1)
    return sums.sum(axis=1)


def _groups(column: Column) -> NDArray[np.intp]:
    """The group of each trial: its value, or of many numbers about as many trials in each group."""
    values = np.unique(column.values, return_inverse=True)[1]
    if not column.ordered or values.max() < GROUPS:
        return values
    edges = np.quantile(values, np.arange(1, GROUPS) / GROUPS, method="higher")
    return np.searchsorted(edges, values)
