"""What a search spec says of its pruner: how trials that fall behind are stopped.

A spec that says nothing gets a halving by three, with rungs at about a 27th, a ninth and a third of the tokens, where
all that is measured is loss. Replayed over a grid of trained architectures it needs an eighth of the tokens of random
search (benchmarks/search_regret). For what is learnt in a late jump, such as recall, it needs more than none does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from miniwin.specs.base import Count, PositiveInt, Strict

THIRD = 3
THIRDS = [0.037, 0.111, 0.333]


class MedianPruner(Strict):
    """Stop a trial whose best value so far is worse than the median of the finished trials at the same rung, once
    `startup` of them have finished."""

    type: Literal["median"] = "median"
    startup: Count = 5


class AshaPruner(Strict):
    """Asynchronous successive halving (arXiv:1810.05934): at each rung only the best 1/`reduction` go on."""

    type: Literal["asha"] = "asha"
    reduction: Annotated[int, Field(ge=2)] = 2


class HalvingPruner(Strict):
    """Asynchronous successive halving for one or several objectives: at each rung the best 1/`reduction` go on, and the
    others wait there, with their checkpoint, until they are among the best, or the study ends.

    `min_tokens`: the rungs are at so many tokens, `reduction` times as many, and so on; null: at `rungs` of the search.
    `brackets`: trials of bracket b are judged first at rung b, as in Hyperband.
    """

    type: Literal["halving"] = "halving"
    reduction: Annotated[int, Field(ge=2)] = 3
    min_tokens: Annotated[Count, Field(ge=1)] | None = None
    brackets: PositiveInt = 1


class HyperbandPruner(Strict):
    """Halving with as many brackets as there are rungs, and one whose trials are never stopped (arXiv:1603.06560)."""

    type: Literal["hyperband"] = "hyperband"
    reduction: Annotated[int, Field(ge=2)] = 3
    min_tokens: Annotated[Count, Field(ge=1)] | None = None


PrunerSpec = Annotated[
    MedianPruner | AshaPruner | HalvingPruner | HyperbandPruner,
    Field(discriminator="type"),
]


def growing(least: int, times: int, most: int) -> list[int]:
    """least, least * times, ... below `most`: the rungs of a halving that starts at a smallest budget."""
    found = []
    while least < most:
        found.append(least)
        least *= times
    return found
