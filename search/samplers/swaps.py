"""Hill climbing over placements: small changes of the best trial so far, from the best of a few random ones.

A placement swaps any two places, far ones too, each pair with the same chance. Single places mislead where places help
only together, as layers that retrieve do: a swap keeps the others, and so tries a place beside those that help.
With several objectives the parent is drawn from the trials that no other dominates.
"""

from __future__ import annotations

import random
from typing import Any

from miniwin.search.samplers.evolution import winner
from miniwin.search.samplers.past import Past
from miniwin.specs.sampling import SwapsSampler


def propose(spec: SwapsSampler, past: Past, seed: int) -> dict[str, Any]:
    return changed_best(past, seed) if len(past.complete) >= spec.startup else past.draw(seed)


def changed_best(past: Past, seed: int) -> dict[str, Any]:
    """A small change of the best complete trial; an assignment at random if there is none."""
    if not past.complete:
        return past.draw(seed)
    draw = random.Random(seed)
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in past.directions]
    best = winner(past.complete, len(past.complete), signs, draw)
    return past.space.encode(past.space.mutate(past.space.decode(best.params), draw, far=True))
