"""The next trial of a search: a function of the space, the sampler that the spec names, and the history.

The seed depends on the study's seed and on the number of trials, and not on the worker. So the same history leads to
the same proposal on any machine, however often workers were restarted, and no two trials draw the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from random import Random
from typing import Any

from optuna.trial import FrozenTrial

from miniwin.search.history import Tried
from miniwin.search.samplers.keys import key_of
from miniwin.search.samplers.past import Past, Variables
from miniwin.search.samplers.told import FREE, Teller
from miniwin.search.samplers.ways import way_of
from miniwin.specs import UserError

STREAK = 10  # free trials in a row before the sampler is helped out
CHANGES = 20  # small changes that are tried of a proposal that was made before


class Proposer:
    """Proposes trials of one space. It keeps what it worked out for one history, to be fast for the next; what it
    proposes does not depend on that."""

    def __init__(self, space: Variables, placements: str | None = None) -> None:
        """placements: their coding for the sampler; None: the one that suits it. The history has the coding of
        `space`, and so has what is proposed."""
        self._space, self._spec = space, space.spec
        self._way = way_of(self._spec.sampler)
        most = space.most_placements()
        coding = placements or ("ordinal" if most <= self._way.few else None)
        self._asked = space.recoded(coding) if coding and most else space
        self._tell = Teller(self._asked)
        self._directions = tuple(objective.direction for objective in self._spec.parsed_objectives)
        self._known: dict[int, tuple[Mapping[str, Any], str, dict[str, Any]]] = {}

    def propose(self, history: Sequence[Tried]) -> dict[str, Any] | None:
        """Optuna's parameters for the next trial; None if every assignment has been tried.

        An assignment is not proposed twice while there are others. Where many trials in a row were free, which means
        that the sampler insists on what cannot be, a random assignment is proposed.
        """
        past = self.past(history)
        number, seen = past.number, past.seen
        values: dict[str, Any] | None = None
        for attempt in range(self._way.tries if _streak(history) < STREAK else 0):
            asked = self._way.propose(self._spec.sampler, past, self._seed(number, attempt))
            if asked is None:
                return None
            values = self._asked.decode(asked)
            proposal = self._space.encode(values)
            if key_of(proposal) not in seen:
                return proposal
        return self._unseen(seen, number, values)

    def past(self, history: Sequence[Tried]) -> Past:
        """What the sampler is told."""
        number = history[-1].number + 1 if history else 0
        seen = {self._understood(tried)[1] for tried in history}

        def tell() -> list[FrozenTrial]:
            return self._tell([replace(tried, params=self._understood(tried)[2]) for tried in history])

        return Past(tell, self._directions, self._asked, number, seen)

    def _unseen(self, seen: Set[str], number: int, near: dict[str, Any] | None) -> dict[str, Any] | None:
        """An assignment that was not tried: close to `near`, or drawn at random."""
        found: dict[str, Any] = {}
        for attempt in range(CHANGES):
            draw = Random(self._seed(number, f"near {attempt}"))
            values = self._space.draw(draw) if near is None else near
            for _ in range(1 + attempt // 5 if near is not None else 0):
                values = self._space.mutate(values, draw)
            found = self._space.encode(values)
            if key_of(found) not in seen:
                return found
        everything = self._space.enumerate()
        if everything is None:
            return found
        left = [params for params in everything if key_of(params) not in seen]
        return left[self._seed(number, "left") % len(left)] if left else None

    def _understood(self, tried: Tried) -> tuple[Mapping[str, Any], str, dict[str, Any]]:
        """The parameters of a trial, their key, and the parameters that the sampler is told: as a trial would have them
        today, in the sampler's coding."""
        before = self._known.get(tried.number)
        if before is None or before[0] != tried.params:
            try:
                values = self._space.decode(tried.params)
                before = (tried.params, key_of(self._space.encode(values)), self._asked.encode(values))
            except UserError:  # not asked to the end yet, or of other variables
                before = (tried.params, key_of(tried.params), {})
            self._known[tried.number] = before
        return before

    def _seed(self, number: int, attempt: int | str) -> int:
        """For numpy: 32 bits."""
        text = f"{self._spec.seed}/{number}" + (f"/{attempt}" if attempt else "")
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def _streak(history: Sequence[Tried]) -> int:
    """How many trials were free since the last that was not."""
    streak = 0
    for tried in reversed(history):
        if tried.state not in FREE:
            break
        streak += 1
    return streak
