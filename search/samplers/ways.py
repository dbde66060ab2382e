"""Which function proposes for which sampler of a spec: one row for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from miniwin.search.samplers import cma, evolution, greedy, grid, hub, optuna_samplers, quasi_random, swaps
from miniwin.search.samplers.past import Past, Variables
from miniwin.specs.sampling import (
    CMASampler,
    EvolutionSampler,
    GPSampler,
    GreedyAdditionSampler,
    GreedyRemovalSampler,
    GridSampler,
    HubSampler,
    NSGA2Sampler,
    NSGA3Sampler,
    QuasiRandomSampler,
    RandomSampler,
    SwapsSampler,
    TPESampler,
)


@dataclass(frozen=True)
class Way:
    """propose: Optuna's parameters, from the sampler's spec, the past and a seed; None: there are no others.
    tries: how often it is asked, each time with another seed, before it is said to insist on what was tried.
    check: SpaceError if it cannot work here, or not on this space.
    few: where a placement has at most so many values, it is told of their ranks; else of their letters, as the storage
    is."""

    propose: Callable[[Any, Past, int], dict[str, Any] | None]
    tries: int = 3
    check: Callable[[Any, Variables], object] | None = None
    few: int = 0


FEW = 16  # benchmarks/search_regret: ranks are better with 10 placements, letters with 28 and more

_WAYS: dict[type, Way] = {
    TPESampler: Way(optuna_samplers.tpe, few=FEW),
    GPSampler: Way(optuna_samplers.gp, 1, optuna_samplers.check_gp),  # another seed hardly changes what it proposes
    NSGA2Sampler: Way(optuna_samplers.nsga2, tries=10),
    NSGA3Sampler: Way(optuna_samplers.nsga3, tries=10),
    CMASampler: Way(cma.propose, 10, cma.check),
    RandomSampler: Way(optuna_samplers.random, tries=10),
    GridSampler: Way(grid.propose, 1, grid.check),
    QuasiRandomSampler: Way(quasi_random.propose, 1, quasi_random.check),
    EvolutionSampler: Way(evolution.propose, tries=10),
    SwapsSampler: Way(swaps.propose, tries=10),
    GreedyAdditionSampler: Way(greedy.add, tries=10),
    GreedyRemovalSampler: Way(greedy.remove, 10, greedy.check_removal),
    HubSampler: Way(hub.propose, 1, hub.check),
}


def way_of(sampler: object) -> Way:
    return _WAYS[type(sampler)]


def check_sampler(space: Variables) -> None:
    """SpaceError if the sampler of a search lacks a package, or cannot work on this space."""
    if check := way_of(space.spec.sampler).check:
        check(space.spec.sampler, space)
