"""One search, replayed over a table.

Workers train at the same speed, so tokens are the clock. A worker that is free takes, as a real one does: a paused
trial that may go on, or a new one. At each rung the pruner is asked. A search over a table has no budget of trials. So
once every assignment was tried, the trials that wait go on, the best first, until all are trained.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.search_regret.median import Median
from benchmarks.search_regret.problem import Entry, Problem
from miniwin.search.brackets import Rule, bracket_of
from miniwin.search.halving import goes_on, promotable
from miniwin.search.history import Tried
from miniwin.search.samplers.keys import key_of
from miniwin.search.samplers.proposing import Proposer
from miniwin.specs import SearchSpec

MOST_FREE = 1000  # assignments in a row that the table lacks


@dataclass(frozen=True)
class Measured:
    """One trial has reached a rung. tokens: of all workers until then."""

    tokens: int
    entry: Entry
    rung: int
    complete: bool


class Search:
    """rule: of successive halving; None: none. median: Optuna's, which stops a trial for good. placements: their coding
    for the sampler; None: the usual one."""

    def __init__(
        self,
        problem: Problem,
        spec: SearchSpec,
        rule: Rule | None = None,
        median: bool = False,
        placements: str | None = None,
    ) -> None:
        self.problem, self.rule = problem, rule
        self.history: list[Tried] = []
        self._median = Median(problem.directions) if median else None
        self._proposer = Proposer(problem.searched(spec), placements)
        self._entries: list[Entry | None] = []
        self._exhausted = False

    def run(self, workers: int) -> Iterator[Measured]:
        """What is measured, in order, until every trial has ended."""
        busy: list[tuple[int, int]] = []  # when a trial reaches its next rung, and its number
        idle, clock = workers, 0
        while True:
            while idle and (number := self._take()) is not None:
                heapq.heappush(busy, (clock + self._distance(number), number))
                idle -= 1
            if not busy:
                return
            before, (clock, number) = clock, heapq.heappop(busy)
            self._spent += (clock - before) * (len(busy) + 1)
            yield self._reached(number)
            if self._goes_on(number):
                heapq.heappush(busy, (clock + self._distance(number), number))
            else:
                idle += 1

    _spent = 0

    def _distance(self, number: int) -> int:
        """Tokens to the next rung."""
        rung = len(self.history[number].rungs)
        return self.problem.tokens[rung] - (self.problem.tokens[rung - 1] if rung else 0)

    def _take(self) -> int | None:
        """The number of the trial that a free worker trains next."""
        directions = self.problem.directions
        paused = promotable(self.history, directions, self.rule) if self.rule else None
        if paused is None:
            number = self._new()
            if number is not None:
                return number
            if self.rule:
                paused = promotable(self.history, directions, self.rule, spare=len(self.history))
        if paused is None:
            return None
        self._change(paused.number, state="running")
        return paused.number

    def _new(self) -> int | None:
        for _ in range(0 if self._exhausted else MOST_FREE):
            params = self._proposer.propose(self.history)
            if params is None:
                break
            number = len(self.history)
            entry = self.problem.entries.get(key_of(params))
            bracket = bracket_of(number, self.rule) if self.rule else 0
            self._entries.append(entry)
            self.history.append(Tried(number, params, "running" if entry else "infeasible", bracket=bracket))
            if entry is not None:
                return number
        self._exhausted = True
        return None

    def _reached(self, number: int) -> Measured:
        """Note what is measured at the next rung."""
        entry, rungs = self._entries[number], self.history[number].rungs
        assert entry is not None
        self._change(number, rungs=(*rungs, entry.rungs[len(rungs)]))
        return Measured(self._spent, entry, len(rungs), entry.complete and len(rungs) + 1 == len(entry.rungs))

    def _goes_on(self, number: int) -> bool:
        """Whether the trial is trained further now. If not, its state says what became of it."""
        entry, reached = self._entries[number], len(self.history[number].rungs)
        assert entry is not None
        if reached == len(entry.rungs):
            self._change(number, state="complete" if entry.complete else "pruned")
        elif self.rule and not goes_on(self.history, number, self.problem.directions, self.rule):
            self._change(number, state="paused")
        elif self._median and self._median.stops(self.history, number):
            self._change(number, state="pruned")
        return self.history[number].state == "running"

    def _change(self, number: int, **changes: object) -> None:
        self.history[number] = replace(self.history[number], **changes)  # type: ignore[arg-type]
