"""Who goes on: asynchronous successive halving (arXiv:1810.05934), here for one to four objectives.

    At each rung one trial in `reduction` goes on: the best of all that have got there, by non-dominated rank, then by
    hypervolume (pareto.py). With fewer trials than `reduction` at the rung, none does yet.

A trial that may not go on is paused. The rung grows, and a trial that was paused may be among the best later. So a
worker that looks for work asks `promotable` first. Nobody waits for a rung to be full, and no worker is idle.

All objectives take part: those that a rung measures, and those that were known before training, such as bytes of the
cache. An objective that nobody knows at a rung, such as the speed of decoding, is left out there. A trial that diverged
is the worst at the rung that it did not reach.

Where every assignment has been tried and the budget is not spent, each trial that is left lets one more go on from each
rung (`spare`): n / reduction^k + spare of the n trials of a bracket pass their k-th rung.

Pure functions of a history: the workers of a search call them, and so does a replay of a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from miniwin.search.brackets import Rule, bracket_of
from miniwin.search.history import Tried
from miniwin.search.pareto import Point, among_best


def goes_on(history: Sequence[Tried], number: int, directions: Sequence[str], rule: Rule) -> bool:
    """Whether a trial goes on from the rung that it has reached last. directions: minimize or maximize."""
    trial = next(one for one in history if one.number == number)
    rung = len(trial.rungs) - 1
    if rung < trial.bracket or rung >= rule.rungs:
        return True
    there = _there(history, trial.bracket, rung)
    own = next(index for index, one in enumerate(there) if one.number == number)
    return among_best(_costs(there, rung, directions), len(there) // rule.reduction, {own}) is not None


def promotable(history: Sequence[Tried], directions: Sequence[str], rule: Rule, spare: int = 0) -> Tried | None:
    """The paused trial that goes on next: of the highest rung, the best of its bracket.

    spare: how many trials of the budget are left, once there is nothing new to try.
    """
    for rung, bracket, there in _waiting(history, rule):
        most = len(there) // rule.reduction
        if spare:
            begun = len(_there(history, bracket, bracket))  # not of those that spare trials have let go on
            most = begun // rule.reduction ** (rung - bracket + 1) + _dealt(spare, bracket, len(history), rule)
        if chosen := _best_waiting(there, rung, directions, most):
            return chosen
    return None


def last_chance(history: Sequence[Tried], directions: Sequence[str], rule: Rule) -> Tried | None:
    """The paused trial that goes on although its rung is too small, when a search would end without it: each bracket
    trains its best to the end. A history in which a trial still runs in a bracket has none for the bracket."""
    busy = {trial.bracket for trial in history if trial.state in ("running", "complete")}
    for rung, bracket, there in _waiting(history, rule):
        if bracket not in busy:
            return _best_waiting(there, rung, directions, len(there))
    return None


def _dealt(spare: int, bracket: int, trials: int, rule: Rule) -> int:
    """The share of a bracket in the trials that are left; all of them, if there are enough for every trial."""
    judged = replace(rule, brackets=min(rule.brackets, rule.rungs))  # in the last one of Hyperband nobody waits
    if judged.brackets == 1 or spare >= trials:
        return spare
    return sum(bracket_of(number, judged) == bracket for number in range(spare))


def _best_waiting(there: Sequence[Tried], rung: int, directions: Sequence[str], most: int) -> Tried | None:
    """The best of the trials that wait at a rung, if it is among the best `most` of all that got there."""
    waiting = {index for index, one in enumerate(there) if one.state == "paused" and len(one.rungs) == rung + 1}
    chosen = among_best(_costs(there, rung, directions), most, waiting)
    return None if chosen is None else there[chosen]


def _waiting(history: Sequence[Tried], rule: Rule) -> list[tuple[int, int, list[Tried]]]:
    """The rungs at which a trial is paused, the highest first: rung, bracket, and all trials that got there."""
    paused = {(len(trial.rungs) - 1, trial.bracket) for trial in history if trial.state == "paused"}
    return [
        (rung, bracket, _there(history, bracket, rung))
        for rung, bracket in sorted(paused, key=lambda place: (-place[0], place[1]))
        if 0 <= rung < rule.rungs
    ]


def _there(history: Sequence[Tried], bracket: int, rung: int) -> list[Tried]:
    return [trial for trial in history if trial.bracket == bracket and len(trial.rungs) > rung]


def _costs(there: Sequence[Tried], rung: int, directions: Sequence[str]) -> list[Point]:
    """The values of the trials at a rung; less is better. Without the objectives that nobody knows there."""
    signs = [1.0 if direction == "minimize" else -1.0 for direction in directions]
    known = [j for j in range(len(signs)) if any(not math.isnan(trial.rungs[rung][j]) for trial in there)]
    return [tuple(signs[j] * trial.rungs[rung][j] for j in known) for trial in there]
