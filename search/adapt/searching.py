"""The search for a placement of a given size: which units stay global.

    repairs    all units local but one: what each is worth alone. Alone misleads: units that retrieve do so together
    draws      random sets of the size that is wanted
    wide       random sets half as large again, which hold such a group more often; the best is improved by swaps
    removal    units are taken from it one by one, each time the one that is missed least
    swaps      the best set of the right size so far: one unit for another, kept if it loses less
    front      from the winner on units are taken away, down to none: quality against cache bytes

The order of everything follows from the seed and from the scores. So a search that reads its earlier scores from a
journal goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from random import Random

from miniwin.search.adapt.plan import Placement
from miniwin.search.adapt.scoring import Damage

DRAWS = 20
WIDE = 1.6  # times as many units as are wanted


class SpentError(Exception):
    """The budget is used up."""


Evaluate = Callable[[Placement], Damage]  # raises SpentError
Keep = Callable[[Placement], None]  # told which placement the next ones are like


@dataclass
class Found:
    """What a search has scored. stages: how many placements each stage scored anew."""

    scored: dict[Placement, Damage] = field(default_factory=dict)
    draws: list[Placement] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)

    def best(self, size: int) -> Placement | None:
        """The best placement of a size; None if there is none."""
        some = [placement for placement in self.scored if len(placement) == size]
        return min(some, key=lambda placement: self.scored[placement].total, default=None)


class Search:
    """units: of the model. size: how many stay global. budget: placements to score, those before the search aside."""

    def __init__(
        self, units: Placement, size: int, evaluate: Evaluate, keep: Keep, *, budget: int, seed: int = 0
    ) -> None:
        self.units, self.size, self.budget = units, size, budget
        self._evaluate, self._keep = evaluate, keep
        self._random = Random(f"adapt placements {seed}")
        self.found = Found()
        self.stage = ""

    def run(self) -> Placement | None:
        """The best placement of the size that the budget allowed to find; None if it allowed none."""
        with suppress(SpentError):
            self._repairs()
            self._draws()
            self._wide()
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
        for unit in self.units:
            self.damage((unit,))

    def _draws(self) -> None:
        """Random sets: the best of them is what the winner is held against."""
        self.stage = "draws"
        left = self.budget - len(self.found.scored)
        drawn = self._random_sets(self.size)
        for _ in range(max(1, min(DRAWS, left // 3))):
            if (placement := next(drawn, None)) is None:
                return
            self.found.draws.append(placement)
            self.damage(placement)

    def _wide(self) -> None:
        """A larger set, improved by swaps, and taken apart down to the size that is wanted."""
        self.stage = "wide"
        size = min(ceil(self.size * WIDE), len(self.units) - 1)
        left = self.budget - len(self.found.scored)
        if size <= self.size or left < 20:
            return
        drawn = self._random_sets(size)
        draws = [placement for _, placement in zip(range(left // 10), drawn, strict=False)]
        for placement in draws:
            self.damage(placement)
        best = self.found.best(size)
        assert best is not None
        self.stage = "wide swaps"
        wide = self.improved(best, len(self.found.scored) + left * 2 // 5)
        self.stage = "removal"
        self._taken_apart(wide, self.size)

    def _swaps(self) -> None:
        self.stage = "swaps"
        best = self.found.best(self.size)
        assert best is not None
        below = self.size * (self.size + 1) // 2  # what the front takes
        self.improved(best, self.budget - below)

    def _front(self) -> None:
        self.stage = "front"
        best = self.found.best(self.size)
        assert best is not None
        self._taken_apart(best, 1)

    def improved(self, placement: Placement, until: int) -> Placement:
        """Swaps in random order, each kept that loses less, until so many placements are scored."""
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
        others = [unit for unit in self.units if unit not in placement]
        pairs = [(out, new) for out in placement for new in others]
        self._random.shuffle(pairs)
        for out, new in pairs:
            yield tuple(sorted({*placement, new} - {out}))

    def _taken_apart(self, placement: Placement, size: int) -> None:
        """Take units away down to a size, each time the one without which the damage is least."""
        while len(placement) > size:
            self._keep(placement)
            smaller = [tuple(one for one in placement if one != unit) for unit in placement]
            placement = min(smaller, key=self.damage)

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


class HeadSearch:
    """Single heads, from the heads of whole layers on: some are taken away at a time, and then swapped.

    budget: placements to score. start: the units of the layers, more than `size`.
    """

    def __init__(
        self, units: Placement, start: Placement, size: int, evaluate: Evaluate, keep: Keep, *, budget: int, seed: int
    ) -> None:
        self.start, self.size, self.budget = start, size, budget
        self._swaps = Search(units, size, evaluate, keep, budget=budget, seed=seed)
        self._keep = keep
        self.found = self._swaps.found

    @property
    def stage(self) -> str:
        return self._swaps.stage

    def run(self) -> Placement | None:
        """The best placement of the size; None if the budget ended before one."""
        with suppress(SpentError):
            self._swaps.stage = "heads taken away"
            here = self.start
            while len(here) > self.size:
                here = self._fewer(here)
            self._swaps.stage = "swaps of heads"
            self._swaps.improved(here, self.budget)
        return self.found.best(self.size)

    def _fewer(self, here: Placement) -> Placement:
        """Without the heads that are missed least one by one: half of those that have to go. What is left is scored."""
        self._keep(here)
        damage = self._swaps.damage
        missed = sorted(here, key=lambda unit: damage(tuple(one for one in here if one != unit)))
        gone = set(missed[: _gone(len(here), self.size)])
        left = tuple(one for one in here if one not in gone)
        damage(left)
        return left


def _gone(here: int, size: int) -> int:
    return (here - size + 1) // 2


def needed(start: int, size: int) -> int:
    """How many placements it takes to come from so many heads to `size`."""
    found = 0
    while start > size:
        gone = _gone(start, size)
        found += start + (gone > 1)  # what is left is scored already if one is gone
        start -= gone
    return found


def predicted(placement: Placement, repairs: dict[Placement, Damage]) -> float | None:
    """What single repairs foretell of a placement, if they added up: d(none) + sum of d(unit) - d(none)."""
    if any((unit,) not in repairs for unit in placement) or () not in repairs:
        return None
    none = repairs[()].total
    return none + sum(repairs[unit,].total - none for unit in placement)
