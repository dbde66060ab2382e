"""What a search spec says of `match`: candidates of the same size, so that a search compares layouts and not sizes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from miniwin.specs.base import Real, Strict, UserError
from miniwin.specs.expressions import is_length
from miniwin.specs.objectives import METRICS

SHORT = {"flops": "training_flops@1x", "train_time": "train_time@1x"}  # words for costs
_ABLE = [row.name for row in METRICS.values() if row.how in ("spec", "predicted") and row.name != "num_layers"]


class Match(Strict):
    """Every candidate, and the baseline, is resized until it has the base model's `cost`. `match: parameters` is short
    for `match: {cost: parameters}`.

    cost: known from the spec: parameters, flops (of training, at the training length), cache_bytes@16x; or train_time,
    which `speeds` of the search predict.
    resize: mlp: each intermediate_size, all by the same factor; width: hidden_size first, with head_dim and
    intermediate_size in proportion.
    within: how far the cost may be from the base model's, as a share of it.
    """

    cost: str
    resize: Literal["mlp", "width"] = "mlp"
    within: Annotated[Real, Field(gt=0, lt=1)] = 0.01

    @field_validator("cost")
    @classmethod
    def _known(cls, cost: str) -> str:
        cost = SHORT.get(cost, cost)
        name, at, length = cost.partition("@")
        row = METRICS.get(name)
        if row is None or name not in _ABLE:
            names = ", ".join([*SHORT, *(able + ("@N" if METRICS[able].by_length else "") for able in _ABLE)])
            raise UserError(f"got '{cost}'; expected a cost that the size of a model decides: {names}")
        if row.by_length and not is_length(length):
            raise UserError(f"got '{cost}'; {name} needs a length, such as {name}@4096 or {name}@16x")
        if at and not row.by_length:
            raise UserError(f"got '{cost}'; {name} does not depend on a length: write {name}")
        return cost

    @model_validator(mode="after")
    def _able(self) -> Match:
        if self.cost.startswith("cache_bytes") and self.resize == "mlp":
            raise ValueError(f"an MLP has no cache, so its size cannot match {self.cost}: add resize: width")
        return self


def _short(value: Any) -> Any:
    return {"cost": value} if isinstance(value, str) else value


Matched = Annotated[Match, BeforeValidator(_short, json_schema_input_type=Match | str)]
