"""The table: every architecture of the grid with what was measured at each rung. A replay of a search asks it.

    table = Table.load()
    row = table.row({"placement": "SSSG", "window": 16, ...}, seed=0)
    row.value("loss@2048")              at the last rung, by the name that an objective has
    row.value("recall@16x", rung=1)     16 times the training length
    row.value("cache_bytes@2048")       known before training

Reading it takes milliseconds, and asking it microseconds. It needs no torch and no training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniwin.specs import UserError
from miniwin.specs.lengths import in_tokens

TABLE = Path(__file__).parent / "grid.parquet"


@dataclass(frozen=True)
class Rung:
    """What was measured after `tokens` tokens: metrics by their names, and seconds of the processor.

    train_seconds: from the first step to here, without evaluations. evaluation_seconds: of this rung alone.
    """

    tokens: int
    train_seconds: float
    evaluation_seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One run. status: complete, diverged or failed, with its reason; rungs: those that it reached.

    costs: what is known before training, by the names of objectives.
    """

    values: Mapping[str, Any]
    seed: int
    status: str
    reason: str | None
    costs: Mapping[str, float]
    rungs: tuple[Rung, ...]
    trained: int = 1  # the training length, in tokens

    def value(self, name: str, rung: int = -1) -> float:
        """A metric at a rung, or a cost.

        Raises:
            UserError: the table has no such number, or the run did not come as far.
        """
        metric, at, length = name.partition("@")
        exact = f"{metric}@{in_tokens(length, self.trained)}" if at and length.endswith("x") else name
        if exact in self.costs:
            return self.costs[exact]
        if not -len(self.rungs) <= rung < len(self.rungs):
            raise UserError(f"rung {rung}: the run has {len(self.rungs)} ({self.status}: {self.reason})")
        if exact not in self.rungs[rung].metrics:
            known = ", ".join([*self.costs, *self.rungs[rung].metrics])
            raise UserError(f"the table has no {name}; it has {known}")
        return self.rungs[rung].metrics[exact]


@dataclass(frozen=True)
class Table:
    """variables: of the space. planned: how many runs the grid has; the table may have fewer. facts: see the card."""

    rows: tuple[Row, ...]
    variables: tuple[str, ...]
    planned: int
    trained: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_key", {(self._key(row.values), row.seed): row for row in self.rows})

    _by_key: dict[tuple[str, int], Row] = field(init=False, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path = TABLE) -> Table:
        """The table of a Parquet file.

        Raises:
            UserError: there is none, it is damaged or of another format, or pyarrow is not installed.
        """
        from benchmarks.search_grid.table_file import load

        return load(path)

    def _key(self, values: Mapping[str, Any]) -> str:
        return json.dumps([values[name] for name in self.variables], sort_keys=True)

    def row(self, values: Mapping[str, Any], seed: int = 0) -> Row:
        """The run of an assignment.

        Raises:
            UserError: the variables are others, or the grid has no such run yet.
        """
        if set(values) != set(self.variables):
            raise UserError(f"got values of {', '.join(values)}; the table's variables are {', '.join(self.variables)}")
        found = self._by_key.get((self._key(values), seed))
        if found is None:
            raise UserError(f"the table has no run of {dict(values)} with seed {seed}")
        return found

    def rungs(self, values: Mapping[str, Any], seed: int = 0) -> tuple[Rung, ...]:
        return self.row(values, seed).rungs

    def of_seed(self, seed: int = 0) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.seed == seed)

    def pairs(self) -> list[tuple[Row, Row]]:
        """The runs of one architecture with two seeds."""
        by_key = self._by_key
        return [(by_key[key, 0], row) for (key, seed), row in by_key.items() if seed and (key, 0) in by_key]
