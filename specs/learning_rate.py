"""What a search spec says of `learning_rate`: how each candidate gets a learning rate of its own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from miniwin.blocks.positions.base import located
from miniwin.specs.base import PositiveReal, Real, Strict
from miniwin.specs.yaml_scalars import shown

FACTORS = [0.5, 1.0, 2.0]


class TunedRate(Strict):
    """Each candidate, and the baseline, is first trained for a short while at each of a few learning rates, and then to
    the end at the best of them. `learning_rate: tuned` is short for `learning_rate: {}`.

    tuned: the rates. factors: in place of rates, multiples of `optimizer.lr` of the train spec. share: how many of the
    tokens of a training each rate gets.
    """

    tuned: Annotated[list[PositiveReal], Field(min_length=2, max_length=20)] | None = None
    factors: Annotated[list[PositiveReal], Field(min_length=2, max_length=20)] = FACTORS
    share: Annotated[Real, Field(gt=0, le=1)] = 0.25

    @model_validator(mode="after")
    def _different(self) -> TunedRate:
        for name in ("tuned", "factors"):
            given = getattr(self, name) or []
            if twice := next((value for value in given if given.count(value) > 1), None):
                raise located(name, f"got {twice:g} twice; expected each once")
        if self.tuned is not None and self.factors != FACTORS:
            raise located(
                "factors", "got factors beside `tuned`, which has the rates themselves: leave out one of them"
            )
        return self

    def rates(self, own: float) -> list[float]:
        """The rates to try, the lowest first. own: the learning rate of the train spec."""
        rates = self.tuned or [float(f"{own * factor:.12g}") for factor in self.factors]
        return sorted(rates)


def _short(value: Any) -> Any:
    if isinstance(value, dict | TunedRate) or value is None:
        return value
    if value == "tuned":
        return {}
    raise ValueError(
        f"got {shown(value)}; expected tuned, or rates to try, such as {{tuned: [0.0015, 0.003, 0.006]}}; one rate for "
        "all stands in the train spec, as optimizer.lr"
    )


LearningRate = Annotated[TunedRate | None, BeforeValidator(_short, json_schema_input_type=TunedRate | str | None)]
