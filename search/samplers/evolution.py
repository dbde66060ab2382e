"""Regularised evolution (Real et al., arXiv:1802.01548, algorithm 1).

The population is the last `population` complete trials: the oldest leaves, however good it is, so that luck does not
last. A parent is the best of `tournament` trials drawn from the population. With several objectives the best are those
that no other of the tournament dominates, and one of them is drawn. The child differs from its parent in one
variable, by a small change (`Space.mutate`).
With probability `crossover` it is first crossed with the winner of a second tournament, which the paper does not do.

Until the population is complete, trials are drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from miniwin.search.samplers.past import Past
from miniwin.specs.sampling import EvolutionSampler

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def propose(spec: EvolutionSampler, past: Past, seed: int) -> dict[str, Any]:
    population = past.complete[-spec.population :]
    if len(population) < spec.population:
        return past.draw(seed)
    draw, space = random.Random(seed), past.space
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in past.directions]
    child = space.decode(winner(population, spec.tournament, signs, draw).params)
    if draw.random() < spec.crossover:
        child = space.cross(child, space.decode(winner(population, spec.tournament, signs, draw).params), draw)
    return space.encode(space.mutate(child, draw))


def winner(
    population: Sequence[FrozenTrial], tournament: int, signs: Sequence[float], draw: random.Random
) -> FrozenTrial:
    """The best of some trials that are drawn; of several that no other of them dominates, one that is drawn."""
    drawn = draw.sample(population, min(tournament, len(population)))
    values = [[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in drawn]
    best = [
        trial for trial, own in zip(drawn, values, strict=True) if not any(_dominates(other, own) for other in values)
    ]
    return draw.choice(best)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere larger and somewhere smaller."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)
