"""Which trainings a confirmation is made of, and how far they are.

    confirm/HASH/      a training: trial.json, run/ (a run folder), scores.json; HASH says what decides its result
    confirm.json       what came of them

All variants have the same seeds. So a difference between two of them is one of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from miniwin.search.candidate import Candidate
from miniwin.search.confirm.result import Result, kept_result
from miniwin.search.outcome import TRAINED
from miniwin.search.study import Study
from miniwin.search.trainings import Training, Variant, training_of, with_seed
from miniwin.search.trial_trainings import seed_after
from miniwin.specs import UserError
from miniwin.specs.confirmation import ConfirmSpec

FOLDER = "confirm"


@dataclass(frozen=True)
class Confirmation:
    """How a confirmation stands. trainings: none before the trials are over, seed by seed. trained: the trials that
    were trained by now. result: what confirm.json has, of now or of a smaller budget. problem: why it has nothing."""

    asked: ConfirmSpec
    trainings: tuple[Training, ...]
    trained: int
    result: Result | None
    problem: str | None = None

    @property
    def over(self) -> bool:
        return all(training.over for training in self.trainings)

    @property
    def current(self) -> bool:
        """Whether the result is of these trainings."""
        if self.result is None:
            return not self.trainings
        known = sorted((run.hash, run.state) for variant in self.result.variants for run in variant.runs)
        now = sorted((one.candidate.hash, one.state) for one in self.trainings)
        return known == now and self.result.trained == self.trained

    @property
    def done(self) -> bool:
        """Whether nothing is left to do. A training that failed may be tried again."""
        return all(one.state in TRAINED for one in self.trainings) and self.current


def find_confirmation(
    study: Study,
    chosen: Sequence[tuple[int, Mapping[str, Any]]] | None,
    trained: int,
    rates: Mapping[int | None, float | None],
    seen: Mapping[str, Any],
) -> Confirmation | None:
    """How the confirmation of a study stands; None if none is asked for. Nothing is written.

    chosen: number and values of the trials to confirm, the best first; None while the trials are not over. rates: the
    learning rates that trials, and the baseline (None), have tuned; empty if the study tunes none. seen: the attributes
    of the Optuna study.
    """
    asked = study.spec.confirm
    if asked is None:
        return None
    problem, result = None, None
    try:
        result = kept_result(study, seen)
    except UserError as error:
        problem = str(error)
    variants = [] if chosen is None else variants_of(study, chosen, rates)
    trainings = [_training(study, variant, seed, seen) for seed in _seeds(study, variants) for variant in variants]
    return Confirmation(asked, tuple(trainings), trained, result, problem)


def variants_of(
    study: Study, chosen: Sequence[tuple[int, Mapping[str, Any]]], rates: Mapping[int | None, float | None]
) -> list[Variant]:
    """The trials, the best first, and the baseline behind them; none if no trial is complete. Each has the learning
    rate that it has tuned; without one, since all diverged or the record is lost, there is nothing to confirm."""
    found = []
    for number, params in chosen:
        candidate = _tuned(study, study.space.assign(dict(params)).candidate, rates.get(number))
        if candidate is not None:
            found.append(Variant(number, dict(params), candidate))
    if found and study.baseline is not None:
        candidate = _tuned(study, study.baseline_candidate(), rates.get(None))
        if candidate is not None:
            found.append(Variant(None, {}, candidate))
    return found


def _tuned(study: Study, candidate: Candidate | None, rate: float | None) -> Candidate | None:
    if candidate is None or study.spec.learning_rate is None:
        return candidate
    return None if rate is None else candidate.at_rate(rate)


def _seeds(study: Study, variants: Sequence[Variant]) -> list[int]:
    """The first seeds that have not trained the variants. A search may set train.seed, and have chosen one."""
    assert study.spec.confirm is not None
    places = range(study.spec.seeds)
    known = {seed_after(variant.candidate.train, place) for variant in variants for place in places}
    after = (seed_after(study.space.train, place) for place in count(study.spec.seeds))
    return list(islice((seed for seed in after if seed not in known), study.spec.confirm.seeds))


def _training(study: Study, variant: Variant, seed: int, seen: Mapping[str, Any]) -> Training:
    assert study.spec.confirm is not None
    candidate = with_seed(variant.candidate, seed)
    label = f"{variant.label} with seed {candidate.train.seed}"
    return training_of(study, FOLDER, label, variant, candidate, study.spec.confirm, seen)
