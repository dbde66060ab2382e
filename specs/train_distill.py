"""Distillation: a teacher, and which of its outputs a run's model learns from.

    distill: {teacher: runs/large, loss: kl, temperature: 2, weight: 0.5, cache: true}
    loss of a run = (1 - weight) * next-token loss + weight * distillation loss      Hinton et al., arXiv:1503.02531

The distillation losses are in miniwin/training/distilling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WrapValidator, model_validator

from miniwin.blocks.positions.base import located_all
from miniwin.specs.base import Count, Grown, PositiveReal, Real, any_name, user_path


def _some(weight: Any) -> Any:
    if not isinstance(weight, bool) and weight == 0:
        raise ValueError("got 0, with which the teacher says nothing; leave out distill")
    return weight


def _named(text: Any) -> Any:
    if text == "":
        raise ValueError("got an empty name; expected a run folder, a zoo entry or an imported folder")
    return text


def _folder(text: Any) -> Any:
    if text == "":
        raise ValueError("got an empty name; expected true, false or a folder")
    return text


Weight = Annotated[Real, BeforeValidator(_some), Field(gt=0, le=1)]


class DistillSpec(Grown):
    """The teacher of a run. Paths are relative to the YAML file."""

    LATER: ClassVar[frozenset[str]] = frozenset({"layers", "cache"})

    # a run folder, a zoo entry or an imported folder
    teacher: Annotated[str, WrapValidator(any_name), BeforeValidator(_named)]
    # kl: of the next token's distribution. hidden: squared distance of the layers' outputs. attention_output: of the
    # attentions' outputs
    loss: Literal["kl", "hidden", "attention_output"] = "kl"
    temperature: PositiveReal = 1.0  # of both distributions; with kl only
    weight: Weight = 0.5  # of the distillation loss; 1: without the next-token loss
    # the teacher's layer for each of the student's, from 0; null: evenly, the last with the last. Not with kl
    layers: Annotated[tuple[Count, ...], Field(strict=False)] | None = None
    # true: keep the teacher's states in MiniWin's cache; or a folder to keep them in; with kl only
    cache: bool | Annotated[str, BeforeValidator(_folder)] = False

    @model_validator(mode="after")
    def _is_used(self) -> DistillSpec:
        of_kl = self.loss == "kl"
        problems = []
        if self.temperature != 1 and not of_kl:
            problems.append(
                ("temperature", f"got {self.temperature:g} with loss: {self.loss}; expected it with kl only")
            )
        if self.layers is not None and of_kl:
            problems.append(("layers", "got layers with loss: kl, which compares none; leave it out"))
        if self.cache is not False and not of_kl:
            problems.append(
                (
                    "cache",
                    f"got {self.cache!r} with loss: {self.loss}, which needs the states of every layer: that is too "
                    "much to keep; expected it with kl only, of which the last states are kept",
                )
            )
        if problems:
            raise located_all(problems)
        return self

    def resolved(self, base: Path) -> DistillSpec:
        """The same with its paths joined to `base`. A teacher that is not there is a name, or a path from the current
        folder."""
        beside = base / user_path(self.teacher)
        found: dict[str, Any] = {"teacher": str(beside)} if beside.exists() else {}
        if isinstance(self.cache, str):
            found["cache"] = str(base / user_path(self.cache))
        return self.model_copy(update=found)
