"""A table as a search sees it: what each assignment measures at each rung, for some objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from optuna.trial import FixedTrial

from benchmarks.search_grid.table import Row, Table
from miniwin.search.samplers.keys import key_of
from miniwin.search.space import Space
from miniwin.specs import SearchSpec, UserError
from miniwin.specs.objectives import Objective

REDUCTION = 3  # of successive halving


@dataclass(frozen=True)
class Entry:
    """One architecture. rungs: the values of all objectives at each rung; NaN where a run that diverged would be."""

    row: Row
    rungs: tuple[tuple[float, ...], ...]
    complete: bool


@dataclass(frozen=True, eq=False)
class Problem:
    """Some objectives over a table.

    space: its variables are those of the table. rungs: those of the table that a search has. tokens: of each of them;
    the last is a whole training.
    """

    table: Table
    space: Space
    objectives: tuple[Objective, ...]
    rungs: tuple[int, ...] = field(init=False)
    tokens: tuple[int, ...] = field(init=False)
    entries: dict[str, Entry] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises UserError if the space and the table are not of the same variables, or the table lacks an
        objective."""
        finished = [row for row in self.table.of_seed() if row.status == "complete"]
        if not finished:
            raise UserError("the table has no run that came to the end")
        tokens = [rung.tokens for rung in finished[0].rungs]
        object.__setattr__(self, "rungs", _apart(tokens))
        object.__setattr__(self, "tokens", tuple(tokens[rung] for rung in self.rungs))
        object.__setattr__(self, "entries", self._entries())

    def _entries(self) -> dict[str, Entry]:
        every = self.space.enumerate()
        if every is None:
            raise UserError("the space of a table has to be finite")
        rows = {self.table._key(row.values): row for row in self.table.of_seed()}
        entries = {}
        for params in every:
            row = rows.get(self.table._key(self.space.suggest(FixedTrial(params))))
            if row is not None and row.status != "failed":  # a grid may not be finished
                entries[key_of(params)] = self._entry(row)
        return entries

    def _entry(self, row: Row) -> Entry:
        reached = [rung for rung in self.rungs if rung < len(row.rungs)]
        found = [tuple(row.value(one.name, rung) for one in self.objectives) for rung in reached]
        complete = row.status == "complete"
        if not complete and len(found) < len(self.tokens):
            found.append((math.nan,) * len(self.objectives))
        return Entry(row, tuple(found), complete)

    @property
    def directions(self) -> tuple[Literal["minimize", "maximize"], ...]:
        return tuple(one.direction for one in self.objectives)

    def searched(self, spec: SearchSpec) -> Space:
        """The space of one search."""
        return Space(spec, self.space.base, self.space.train)


def _apart(tokens: Sequence[int]) -> tuple[int, ...]:
    """The rungs that successive halving can use: each has at least REDUCTION times the tokens of the one before. A
    little less will do, since tokens are rounded to whole steps."""
    found = [len(tokens) - 1]
    for rung in reversed(range(len(tokens) - 1)):
        if tokens[rung] * REDUCTION <= 1.05 * tokens[found[0]]:
            found.insert(0, rung)
    return tuple(found)


def objectives_of(texts: Sequence[str]) -> tuple[Objective, ...]:
    return tuple(Objective.parse(text) for text in texts)
