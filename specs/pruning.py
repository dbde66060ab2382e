"""What a search spec says of its pruner: how trials that fall behind are stopped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from miniwin.specs.base import Count, Strict


class MedianPruner(Strict):
    """Stop a trial whose best value so far is worse than the median of the finished trials at the same rung, once
    `startup` of them have finished."""

    type: Literal["median"] = "median"
    startup: Count = 5


class AshaPruner(Strict):
    """Asynchronous successive halving (arXiv:1810.05934): at each rung only the best 1/`reduction` go on."""

    type: Literal["asha"] = "asha"
    reduction: Annotated[int, Field(ge=2)] = 2


PrunerSpec = Annotated[MedianPruner | AshaPruner, Field(discriminator="type")]
