"""How good what a search has found is, after so many tokens.

What a search has found is what its report would say: with one objective, the trained architecture with the best
measured value, with several, all that were trained to the end. How good that is, the table knows without the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.search_regret.cases import Case
from benchmarks.search_regret.problem import Problem
from benchmarks.search_regret.replay import Measured, Search
from benchmarks.search_regret.truth import Truth

POINTS = tuple(round(0.25 * 1.2**step, 3) for step in range(27))  # whole trainings, from 0.25 to 29
SHARE = 0.95  # of the hypervolume of all architectures


@dataclass(frozen=True)
class Found:
    """trainings: tokens until the aim was reached, in whole trainings; None: never. curve: at each of POINTS the
    regret, or the share of the hypervolume; None where nothing was trained to the end yet."""

    trainings: float | None
    curve: tuple[float | None, ...]
    trials: int
    complete: int


def found(problem: Problem, truth: Truth, case: Case, seed: int, *, whole_curve: bool = True) -> Found:
    """One search, until its aim is reached and the curve has all its points, or nothing is left.

    whole_curve: False stops at the aim; what the search has then is taken for the rest of the curve.
    """
    search = Search(
        problem, case.spec(problem, seed), case.rule(problem), case.pruner == "median", case.sampler.placements
    )
    whole = problem.tokens[-1]
    reached: float | None = None
    curve: list[float | None] = []
    now: float | None = None
    complete = 0
    for at, good, aim in _goodness(truth, problem, search.run(case.workers)):
        while len(curve) < len(POINTS) and at / whole > POINTS[len(curve)]:
            curve.append(now)
        if good is not None:
            now, complete = good, complete + 1
            if aim and reached is None:
                reached = at / whole
        if reached is not None and (len(curve) == len(POINTS) or not whole_curve):
            break
    curve += [now] * (len(POINTS) - len(curve))
    return Found(reached, tuple(curve), len(search.history), complete)


def _goodness(truth: Truth, problem: Problem, measured: Iterator[Measured]) -> Iterator[tuple[int, float | None, bool]]:
    """Tokens, how good what was found is then (None: it is as before), and whether that is good enough."""
    sign = 1.0 if problem.directions[0] == "minimize" else -1.0
    best, rows, volume = float("inf"), [], 0.0
    chosen = None
    for one in measured:
        if not one.complete:
            yield one.tokens, None, False
        elif len(problem.directions) == 1:
            value = sign * one.entry.rungs[-1][0]
            if value < best:
                best, chosen = value, one.entry.row
            assert chosen is not None
            yield one.tokens, truth.regret(chosen), truth.near(chosen)
        else:
            rows.append(one.entry.row)
            volume = truth.volume(rows)
            yield one.tokens, volume, volume >= SHARE
