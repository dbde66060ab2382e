"""The next trial of a search: a function of the space, the sampler that the spec names, and the history.

The seed depends on the study's seed and on the number of trials, and not on the worker. So the same history leads to
the same proposal on any machine, however often workers were restarted, and no two trials draw the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from miniwin.search.history import Tried
from miniwin.search.samplers.keys import key_of
from miniwin.search.samplers.past import Past, Variables
from miniwin.search.samplers.redrawing import redrawn
from miniwin.search.samplers.told import FREE, Teller
from miniwin.search.samplers.ways import way_of
from miniwin.specs import UserError

STREAK = 10  # free trials in a row before the sampler is helped out
REDRAWS = 20  # changes of one parameter that are tried in a proposal that was made before


class Proposer:
    """Proposes trials of one space. It keeps what it worked out for one history, to be fast for the next; what it
    proposes does not depend on that."""

    def __init__(self, space: Variables) -> None:
        self._space, self._spec = space, space.spec
        self._tell = Teller(space)
        self._directions = tuple(objective.direction for objective in self._spec.parsed_objectives)
        self._keys: dict[int, tuple[Mapping[str, Any], str]] = {}

    def propose(self, history: Sequence[Tried]) -> dict[str, Any] | None:
        """Optuna's parameters for the next trial; None if every assignment has been tried.

        An assignment is not proposed twice while there are others. Where many trials in a row were free, which means
        that the sampler insists on what cannot be, a random assignment is proposed.
        """
        number = history[-1].number + 1 if history else 0
        seen = {self._key(tried) for tried in history}
        past = Past(self._tell(history), self._directions, self._space, number, seen)
        way = way_of(self._spec.sampler)
        proposal: dict[str, Any] | None = None
        for attempt in range(way.tries if _streak(history) < STREAK else 0):
            proposal = way.propose(self._spec.sampler, past, self._seed(number, attempt))
            if proposal is None:
                return None
            proposal = self._space.settled(proposal)
            if key_of(proposal) not in seen:
                return proposal
        return self._unseen(past, seen, number, proposal)

    def _unseen(self, past: Past, seen: set[str], number: int, near: dict[str, Any] | None) -> dict[str, Any] | None:
        """An assignment that was not tried: close to `near`, or drawn at random."""
        found: dict[str, Any] = {}
        for attempt in range(REDRAWS):
            drawn = redrawn(past, near or {}, self._seed(number, f"near {attempt}"), count=1 + attempt // 5)
            found = self._space.settled(drawn)
            if key_of(found) not in seen:
                return found
        everything = self._space.enumerate()
        if everything is None:
            return found
        left = [params for params in everything if key_of(params) not in seen]
        return left[self._seed(number, "left") % len(left)] if left else None

    def _seed(self, number: int, attempt: int | str) -> int:
        """For numpy: 32 bits."""
        text = f"{self._spec.seed}/{number}" + (f"/{attempt}" if attempt else "")
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    def _key(self, tried: Tried) -> str:
        before = self._keys.get(tried.number)
        if before is None or before[0] != tried.params:
            self._keys[tried.number] = before = (tried.params, key_of(self._known(tried.params)))
        return before[1]

    def _known(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters as a trial would have them today."""
        try:
            return self._space.settled(params)
        except UserError:  # not asked to the end yet
            return params


def _streak(history: Sequence[Tried]) -> int:
    """How many trials were free since the last that was not."""
    streak = 0
    for tried in reversed(history):
        if tried.state not in FREE:
            break
        streak += 1
    return streak
