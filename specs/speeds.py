"""How fast a machine trains, as three constants: times are then predicted from a spec alone.

    seconds of training a token = flop F + score S + layer L / tokens

F floating-point operations of the matrix products of a token, S those of attention scores at the length, both forward;
L layers. The third term is what each layer of a pass costs whatever its size: in small models that is most of the time.
`miniwin calibrate` measures the constants once. A search keeps those that it was given, so a prediction, and all that
follows from it, is the same on every machine and at any time.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from miniwin.specs.base import PositiveInt, Real, Strict
from miniwin.specs.model import ModelSpec

Seconds = Annotated[Real, Field(ge=0)]


class Speeds(Strict):
    """Seconds of training: for each floating-point operation of matrix products, and of attention scores, of a token
    forward; and for each layer of a pass of so many `tokens`. `machine` says what was measured."""

    machine: str
    tokens: PositiveInt
    flop: Seconds
    score: Seconds
    layer: Seconds

    @model_validator(mode="after")
    def _takes_time(self) -> Speeds:
        if self.flop == self.score == self.layer == 0:
            raise ValueError("got 0 for all, and no training is free; expected what `miniwin calibrate` prints")
        return self

    def seconds(self, model: ModelSpec, length: int) -> float:
        """Of training a token, in sequences of `length` tokens."""
        products, scores, passes = terms(model, length, self.tokens)
        return self.flop * products + self.score * scores + self.layer * passes


def terms(model: ModelSpec, length: int, tokens: int) -> tuple[float, float, float]:
    """What the constants are multiplied with. tokens: of a pass."""
    products = model.forward_flops(1)
    return products, model.forward_flops(length) - products, model.num_layers / tokens
