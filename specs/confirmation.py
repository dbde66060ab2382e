"""What a search spec says of its confirmation: how the best trials are held against the baseline once more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from miniwin.specs.base import Count, PositiveInt, Strict
from miniwin.specs.yaml_scalars import shown


class ConfirmSpec(Strict):
    """When the trials are over, the best `top` of them and the baseline are trained anew, with `seeds` new seeds each
    and the tokens of a trial, and measured on a split that neither training nor any choice has seen.

    With several objectives the best are those of the front, by the objective that chooses the best trial.
    """

    top: PositiveInt = 3
    seeds: PositiveInt = 3
    split: Literal["test"] = "test"
    tokens: Annotated[Count, Field(ge=1)] | None = None  # null: four times eval_tokens, or what the split has

    @field_validator("split", mode="before")
    @classmethod
    def _unseen(cls, split: Any) -> Any:
        if split in ("valid", "train"):
            why = "the trials were chosen by it" if split == "valid" else "the trials were trained on it"
            raise ValueError(f"got {shown(split)}; expected test: {why}, so it confirms nothing")
        return split
