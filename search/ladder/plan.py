"""plan.json: what is trained in a ladder. It is written once, before the first training, and never again.

The models and train specs stand in it as they are, so that a larger budget of the study, or another version of
MiniWin, trains nothing else half-way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from miniwin.search.ladder.growing import Grow
from miniwin.search.ladder.keeping import FOLDER, read, write
from miniwin.search.study import Study
from miniwin.specs.base import Strict
from miniwin.specs.confirmation import ConfirmSpec

NAME = "plan"

Rates = Literal["constant", "width"]


class Sized(Strict):
    """A variant at one size. model, train: the specs as they are, but for the seed. flops: of the whole training."""

    parameters: int
    flops_per_token: float
    tokens: int
    flops: float
    model: dict[str, Any]
    train: dict[str, Any]


class Size(Strict):
    """target: the parameters asked for. seeds: those of the trainings. models: of each variant."""

    target: int
    seeds: list[int]
    models: list[Sized]


class Member(Strict):
    """A variant. trial: null for the baseline, which is the last. params: of the trial."""

    label: str
    trial: int | None
    params: dict[str, Any]
    layout: str


class Plan(Strict):
    """trained: how many trials the study had. length: of the loss that the lines are of. measured: on what."""

    format: Literal[1] = 1
    study: str
    study_id: str
    trained: int
    chosen_by: str
    made: str
    grow: Grow
    learning_rate: Rates
    tokens_per_parameter: float
    length: int
    measured: ConfirmSpec
    members: list[Member]
    sizes: list[Size]

    @property
    def hash(self) -> str:
        return hash_of(self)

    @property
    def targets(self) -> list[int]:
        return [size.target for size in self.sizes]


def hash_of(file: Strict, without: str | None = None) -> str:
    """sha256 of what a file says. without: the field that holds the hash."""
    data = file.model_dump(mode="json", exclude=None if without is None else {without})
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def size_text(parameters: int) -> str:
    """`0.3M`, `1M`, `50k`: a size as a person asks for it."""
    for unit, letter, least in ((1e9, "G", 1e9), (1e6, "M", 1e5), (1e3, "k", 1e3)):
        if parameters >= least:
            return f"{parameters / unit:.4g}{letter}"
    return str(parameters)


def write_plan(study: Study, plan: Plan) -> None:
    write(study, NAME, plan)


def read_plan(study: Study, seen: Mapping[str, Any] | None = None) -> Plan | None:
    """The plan of a study's ladder; None if there is none. UserError if it is damaged."""
    return read(study, NAME, Plan, f"restore it, or move {study.folder / FOLDER} away to begin anew", seen)
