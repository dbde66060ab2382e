"""Which trainings a ladder is made of, and how far they are.

ladder/plan.json          what is trained (plan.py)
ladder/HASH/              a training: trial.json, run/, scores.json; of the largest size also begun.json
ladder/prediction.json    what the smaller sizes say of the largest (prediction.py)
ladder.json               what came of it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from miniwin.search.candidate import Candidate
from miniwin.search.ladder.keeping import FOLDER
from miniwin.search.ladder.plan import Member, Plan, Size, Sized, read_plan, size_text
from miniwin.search.ladder.prediction import Prediction, read_prediction
from miniwin.search.ladder.result import LadderResult, read_ladder_result
from miniwin.search.outcome import TRAINED
from miniwin.search.study import Study
from miniwin.search.trainings import Training, Variant, training_of, with_seed
from miniwin.specs import UserError, parse_spec

Seen = Mapping[str, Any] | None


@dataclass(frozen=True)
class Ladder:
    """How a ladder stands. trainings: of each size, of each member, by seed. problem: what is wrong with its files."""

    plan: Plan | None
    trainings: tuple[tuple[tuple[Training, ...], ...], ...] = ()
    prediction: Prediction | None = None
    result: LadderResult | None = None
    problem: str | None = None

    @property
    def lower(self) -> list[Training]:
        """The trainings of all sizes but the largest, seed by seed."""
        return [one for size in self.trainings[:-1] for one in _by_seed(size)]

    @property
    def largest(self) -> list[Training]:
        return _by_seed(self.trainings[-1]) if self.trainings else []

    @property
    def every(self) -> list[Training]:
        return [*self.lower, *self.largest]

    @property
    def broken(self) -> list[Training]:
        """Trainings that ended without a result: then nothing can be said."""
        return [one for one in self.every if one.over and one.state != "complete"]

    @property
    def stuck(self) -> bool:
        """Whether one of them diverged: nothing that is left to train would help."""
        return any(one.state in TRAINED for one in self.broken)

    @property
    def current(self) -> bool:
        """Whether the result is of this plan."""
        return self.result is not None and self.plan is not None and self.result.plan == self.plan.hash

    @property
    def done(self) -> bool:
        """Whether nothing is left to do. A training that failed may be tried again."""
        return self.problem is not None or self.current or (self.stuck and not any(one.alive for one in self.every))


def find_ladder(study: Study, seen: Mapping[str, Any] | None = None) -> Ladder | None:
    """How the ladder of a study stands; None if there is none. Nothing is written. seen: the attributes of the Optuna
    study, if they have just been read."""
    try:
        plan = read_plan(study, seen)
    except UserError as error:
        return Ladder(None, problem=str(error))
    if plan is None:
        return None
    trainings = tuple(_of_size(study, plan, size, seen) for size in plan.sizes)
    try:
        return Ladder(plan, trainings, read_prediction(study, seen), read_ladder_result(study, seen))
    except UserError as error:
        return Ladder(plan, trainings, problem=str(error))


def _of_size(study: Study, plan: Plan, size: Size, seen: Seen) -> tuple[tuple[Training, ...], ...]:
    return tuple(
        tuple(_training(study, plan, size, member, model, seed, seen) for seed in size.seeds)
        for member, model in zip(plan.members, size.models, strict=True)
    )


def _training(study: Study, plan: Plan, size: Size, member: Member, model: Sized, seed: int, seen: Seen) -> Training:
    candidate = with_seed(_candidate(json.dumps(model.model), json.dumps(model.train)), seed)
    variant = Variant(member.trial, member.params, candidate)
    label = f"{member.label} at {size_text(size.target)} with seed {seed}"
    return training_of(study, FOLDER, label, variant, candidate, plan.measured, seen)


@lru_cache(maxsize=64)
def _candidate(model: str, train: str) -> Candidate:
    specs: Any = (parse_spec(json.loads(model), "model"), parse_spec(json.loads(train), "train"))
    return Candidate(*specs)


def _by_seed(size: Sequence[Sequence[Training]]) -> list[Training]:
    return [one for trainings in zip(*size, strict=True) for one in trainings]
