"""What a search spec says of its sampler: how the next trial is proposed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from miniwin.specs.base import Count, Strict


class TPESampler(Strict):
    """Tree-structured Parzen estimator (Bergstra et al., 2011), multivariate; the first `startup` trials are random."""

    type: Literal["tpe"] = "tpe"
    startup: Count = 10


class RandomSampler(Strict):
    """Every trial is drawn at random."""

    type: Literal["random"] = "random"


SamplerSpec = Annotated[TPESampler | RandomSampler, Field(discriminator="type")]
