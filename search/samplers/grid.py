"""Every assignment of a space once, in an order drawn at random by the study's seed."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from miniwin.search.samplers.keys import key_of
from miniwin.search.samplers.needs import refused
from miniwin.search.samplers.past import Past, Variables
from miniwin.specs.sampling import GridSampler


def check(spec: GridSampler, space: Variables) -> None:
    if space.enumerate() is None:
        raise refused(
            "type", "grid tries all assignments, and there are too many: use another sampler, or fewer values"
        )


def propose(spec: GridSampler, past: Past, seed: int) -> dict[str, Any] | None:
    return next((params for key, params in _in_order(past.space) if key not in past.seen), None)


@lru_cache(maxsize=1)
def _in_order(space: Variables) -> list[tuple[str, dict[str, Any]]]:
    everything = [(key_of(params), params) for params in space.enumerate() or ()]
    random.Random(space.spec.seed).shuffle(everything)
    return everything
