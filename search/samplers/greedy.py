"""Greedy addition to a subset, and greedy removal from it, with every choice scored anew in each round.

    addition    {} -> {17} -> {17, 18} -> ...      a round tries the subset with each place that is not in it
    removal     all -> all but 4 -> ...            a round tries the subset without each place that is in it

A round costs as many trials as there are places left. The best of a round, by the objective that chooses the best trial
(objectives.chief), is where the next one begins. A worker that finds nothing left to try in a round, while others still
measure, begins the next round with the best so far: it need not wait, and what it tries may be of use or not. Once the
subset is as large, or as small, as it may be, small changes of the best follow (swaps.py).

Places that help only together are what greedy choices miss; `swaps` is for these.
"""

from __future__ import annotations

from typing import Any

from miniwin.search.objectives import chief
from miniwin.search.samplers.needs import refused
from miniwin.search.samplers.past import Past, Variables
from miniwin.search.samplers.swaps import changed_best
from miniwin.specs.placements import SubsetVariable
from miniwin.specs.sampling import GreedyAdditionSampler, GreedyRemovalSampler

Chosen = frozenset[int]


def add(spec: GreedyAdditionSampler, past: Past, seed: int) -> dict[str, Any]:
    return _propose(past, seed, frozenset(), grows=True)


def remove(spec: GreedyRemovalSampler, past: Past, seed: int) -> dict[str, Any]:
    return _propose(past, seed, frozenset(range(past.space.places(_subset(past.space)[0]))), grows=False)


def check_removal(spec: GreedyRemovalSampler, space: Variables) -> None:
    """SpaceError if the subset cannot hold all places."""
    name, (_, high) = _subset(space)
    if high < (places := space.places(name)):
        raise refused(
            "type",
            f"greedy-removal begins with all {places} places, and {name} has at most {high}: let its size end there",
        )


def _propose(past: Past, seed: int, begin: Chosen, *, grows: bool) -> dict[str, Any]:
    name, (low, high) = _subset(past.space)
    costs, tried = _known(past, name)
    here = begin
    if low <= len(here) <= high and here not in tried:
        return past.space.encode({name: sorted(here)})
    while len(here) < high if grows else len(here) > low:
        places = [place for place in range(past.space.places(name)) if (place in here) != grows]
        options = [here | {place} if grows else here - {place} for place in places]
        left = [option for option in options if option not in tried]
        if left:
            return past.space.encode({name: sorted(left[0])})
        known = [option for option in options if option in costs]
        if not known:  # none of them is an architecture, or none is measured yet
            break
        here = min(known, key=lambda option: (costs[option], sorted(option)))
    return changed_best(past, seed)


def _known(past: Past, name: str) -> tuple[dict[Chosen, float], set[Chosen]]:
    """What each subset costs, less being better, as far as that is known; and all that were tried."""
    objectives = past.space.spec.parsed_objectives
    by = objectives.index(chief(objectives))
    sign = -1.0 if past.directions[by] == "maximize" else 1.0
    costs: dict[Chosen, float] = {}
    tried: set[Chosen] = set()
    complete = {trial.number for trial in past.complete}
    for trial in past.trials:
        values = past.space.decode(trial.params)
        if name not in values:  # not asked to the end yet
            continue
        chosen = frozenset(values[name])
        tried.add(chosen)
        if trial.number in complete:
            costs[chosen] = sign * trial.values[by]
    return costs, tried


def _subset(space: Variables) -> tuple[str, tuple[int, int]]:
    """The subset variable, and its least and its largest size."""
    for name, variable in space.spec.variables.items():
        if isinstance(variable, SubsetVariable) and isinstance(variable.subset.size, list):
            return name, (variable.subset.size[0], variable.subset.size[1])
    raise AssertionError("the spec was checked: it has a subset")
