"""The search for a placement of a given size: which units stay global.

    repairs    everything local but one layer: what each is worth alone. Alone misleads: units that retrieve do so
               together
    draws      random sets of the size that is wanted: the best of them is what the winner is held against
    gates      all units together, learnt (gate_learning.py); then the units whose gates are most open
    removal    if these are more than are wanted: those that are missed least are taken away
    swaps      from the best set so far: one unit for another, kept if it loses less. Closed gates go first, and those
               that were open longest come first
    front      quality against cache bytes: larger sets as the gates had them on the way, and smaller ones, from the
               winner on without the units that are missed least

The order of everything follows from the seed and from the scores. So a search that reads its earlier scores from a
journal goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from random import Random

from miniwin.search.adapt.gate_learning import GateStep, placements_of, worth
from miniwin.search.adapt.plan import Placement
from miniwin.search.adapt.scoring import Damage

DRAWS = 20
LARGER = (1.25, 1.6, 2.0, 3.0)  # of the front, times as many units as are wanted
SINGLY = 6  # units from which they are taken away one by one


class SpentError(Exception):
    """The budget is used up."""


Evaluate = Callable[[Placement], Damage]  # raises SpentError
Keep = Callable[[Placement], None]  # told which placement the next ones are like


@dataclass
class Found:
    """What a search has scored. stages: how many placements each stage scored anew. gates: each step."""

    scored: dict[Placement, Damage] = field(default_factory=dict)
    draws: list[Placement] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)
    gates: list[GateStep] = field(default_factory=list)

    def best(self, size: int) -> Placement | None:
        """The best placement of a size; None if there is none."""
        some = [placement for placement in self.scored if len(placement) == size]
        return min(some, key=lambda placement: self.scored[placement].total, default=None)


class Search:
    """units: of the model. layers: the units of each layer. size: how many stay global. budget: placements to score.

    learn: what learns the gates; None: they are left out.
    """

    def __init__(
        self,
        units: Placement,
        layers: Sequence[Placement],
        size: int,
        evaluate: Evaluate,
        keep: Keep,
        *,
        budget: int,
        seed: int = 0,
        learn: Callable[[], list[GateStep]] | None = None,
    ) -> None:
        self.units, self.layers, self.size, self.budget = units, layers, size, budget
        self._evaluate, self._keep, self._learn = evaluate, keep, learn
        self._random = Random(f"adapt placements {seed}")
        self.found = Found()
        self.stage = ""

    def run(self) -> Placement | None:
        """The best placement of the size that the budget allowed to find; None if it allowed none."""
        with suppress(SpentError):
            self._repairs()
            self._draws()
            self._gates()
            self._swaps()
            self._front()
        return self.found.best(self.size)

    def damage(self, placement: Placement) -> float:
        known = self.found.scored.get(placement)
        if known is None:
            if len(self.found.scored) >= self.budget:
                raise SpentError
            known = self._evaluate(placement)
            self.found.scored[placement] = known
            self.found.stages[self.stage] = self.found.stages.get(self.stage, 0) + 1
        return known.total

    def _repairs(self) -> None:
        self.stage = "repairs"
        self._keep(())
        self.damage(())
        for layer in self.layers:
            self.damage(layer)

    def _draws(self) -> None:
        self.stage = "draws"
        left = self.budget - len(self.found.scored) - (needed(len(self.units), self.size) if self._learn else 0)
        drawn = self._random_sets(self.size)
        for _ in range(max(1, min(DRAWS, left // 3))):
            if (placement := next(drawn, None)) is None:
                return
            self.found.draws.append(placement)
            self.damage(placement)

    def _gates(self) -> None:
        if self._learn is None or len(self.found.scored) >= self.budget:
            return
        self.stage = "gates"
        self.found.gates = self._learn()
        (here,) = placements_of(self.found.gates, self.units, [opened(len(self.units), self.size)])
        self.damage(here)
        self.stage = "removal"
        while len(here) > self.size:
            here = self._without(here, _taken(len(here), self.size))

    def _swaps(self) -> None:
        self.stage = "swaps"
        best = self.found.best(self.size)
        assert best is not None
        self.improved(best, self.budget - self._front_needs())

    def _front(self) -> None:
        self.stage = "front"
        for placement in placements_of(self.found.gates, self.units, self._larger()) if self.found.gates else ():
            self.damage(placement)
        here = self.found.best(self.size)
        assert here is not None
        while len(here) > 1:
            here = self._without(here, _gone(len(here)))

    def _larger(self) -> list[int]:
        least = opened(len(self.units), self.size)
        return sorted({min(round(least * times), len(self.units) - 1) for times in LARGER} - {self.size})

    def _front_needs(self) -> int:
        """How many placements the front takes."""
        needs, size = len(self._larger()) if self.found.gates else 0, self.size
        while size > 1:
            gone = _gone(size)
            needs, size = needs + size + (gone > 1), size - gone
        return needs

    def _without(self, here: Placement, count: int) -> Placement:
        """Without the `count` units that are missed least one by one. What is left is scored."""
        self._keep(here)
        missed = sorted(here, key=lambda unit: self.damage(tuple(one for one in here if one != unit)))
        gone = set(missed[:count])
        left = tuple(one for one in here if one not in gone)
        self.damage(left)
        return left

    def improved(self, placement: Placement, until: int) -> Placement:
        """Swaps, each kept that loses less, until so many placements are scored."""
        here = self.damage(placement)
        self._keep(placement)
        while True:
            for other in self._neighbours(placement):
                if len(self.found.scored) >= until:
                    return placement
                if (there := self.damage(other)) < here:
                    placement, here = other, there
                    self._keep(placement)
                    break
            else:
                return placement

    def _neighbours(self, placement: Placement) -> Iterator[Placement]:
        """All swaps: in random order, or, where gates were learnt, those first that they speak for."""
        others = [unit for unit in self.units if unit not in placement]
        pairs = [(out, new) for out in placement for new in others]
        self._random.shuffle(pairs)
        if self.found.gates:
            of = dict(zip(self.units, worth(self.found.gates), strict=True))
            pairs.sort(key=lambda pair: of[pair[0]] - of[pair[1]])
        for out, new in pairs:
            yield tuple(sorted({*placement, new} - {out}))

    def _random_sets(self, size: int) -> Iterator[Placement]:
        seen: set[Placement] = set()
        for _ in count():
            if len(seen) >= _choices(len(self.units), size):
                return
            placement = tuple(sorted(self._random.sample(self.units, size)))
            if placement not in seen:
                seen.add(placement)
                yield placement


def _choices(n: int, k: int) -> int:
    """How many sets there are, as far as it matters: up to 1,000."""
    found = 1
    for i in range(k):
        found = found * (n - i) // (i + 1)
        if found > 1000 and i + 1 <= n // 2:
            return 1000
    return found


def _gone(size: int) -> int:
    """How many units are taken from so many at a time."""
    return 1 if size <= SINGLY else size // 2


def opened(units: int, size: int) -> int:
    """How many gates stay open: with fewer than a sixth of all, learning them finds no group that retrieves."""
    return max(size, min(ceil(units / 6), units - 1))


def _taken(here: int, size: int) -> int:
    """Half of those that have to go."""
    return (here - size + 1) // 2


def needed(units: int, size: int) -> int:
    """How many placements it takes to come from the gates to `size`."""
    here, found = opened(units, size), 1
    while here > size:
        gone = _taken(here, size)
        found, here = found + here + (gone > 1), here - gone
    return found


def predicted(placement: Placement, repairs: dict[Placement, Damage]) -> float | None:
    """What single repairs foretell of a placement, if they added up: d(none) + sum of d(unit) - d(none)."""
    if any((unit,) not in repairs for unit in placement) or () not in repairs:
        return None
    none = repairs[()].total
    return none + sum(repairs[unit,].total - none for unit in placement)
