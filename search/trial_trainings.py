"""The trainings of a trial: one, unless the search asks for several seeds, or tunes the learning rate.

    rates/0.003/ ...   short ones, which choose the learning rate (tuning.py)
    run/               with the candidate's own seed; the only one of most trials
    seeds/1/ ...       the same with the next seeds

Each is a run folder within the folder of the trial, so each goes on after a kill as any run does. What a trial is
worth, at a rung and at its end, is the mean over its seeds:

    mean = (x_1 + ... + x_n) / n        standard error = sqrt(sum (x_i - mean)^2 / (n - 1) / n)

A seed that came to nothing has no value, and the mean of the others would flatter: then the trial has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from miniwin.search.candidate import at_rate
from miniwin.specs import SearchSpec, TrainSpec

MAIN, FURTHER, SWEEP = "run", "seeds", "rates"  # folders
SEEDS = 2**64  # how many there are
Name = TypeVar("Name", str, int)


@dataclass
class TrialTraining:
    """One training of a trial, as trial.json has it.

    folder: its run folder, within that of the trial. learning_rate: None: that of the candidate. rungs, losses, values:
    as those of the trial (outcome.py), of this seed alone. With values it is over; or with a reason, if it diverged.
    """

    folder: str
    seed: int
    _: KW_ONLY
    learning_rate: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    rungs: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    reason: str | None = None

    @classmethod
    def of(cls, data: dict[str, Any]) -> TrialTraining:
        """What trial.json says; TypeError if that is something else."""
        found = cls(**data)
        sound = isinstance(found.folder, str) and isinstance(found.seconds, int | float)
        if not (sound and isinstance(found.seed, int) and isinstance(found.tokens, int)):
            raise TypeError
        return found

    def at(self, tokens: int) -> dict[str, float] | None:
        """What was measured at a rung; None if the training has not got there."""
        return next((rung["values"] for rung in self.rungs if rung["tokens"] == tokens), None)

    def is_beyond(self, tokens: int) -> bool:
        """Whether it has gone on from a rung. What was measured there may be lost, with a trial.json of before."""
        return bool(self.values) or any(rung["tokens"] > tokens for rung in self.rungs)

    @property
    def sweeps(self) -> bool:
        """Whether it is a short one, which has no part in what the trial is worth."""
        return self.folder.startswith(f"{SWEEP}/")

    def spec(self, search: SearchSpec, train: TrainSpec) -> TrainSpec:
        """How it is trained. train: of the candidate."""
        if self.learning_rate is not None:
            train = at_rate(train, self.learning_rate)
        if self.sweeps:
            train = train.model_copy(update={"tokens": sweep_tokens(search, train)})
        return train if train.seed == self.seed else train.model_copy(update={"seed": self.seed})


def has_several(spec: SearchSpec) -> bool:
    """Whether a trial is more than one training."""
    return spec.seeds > 1 or spec.learning_rate is not None


def planned(spec: SearchSpec, train: TrainSpec, known: Sequence[TrialTraining]) -> list[TrialTraining]:
    """All trainings of a trial. train: of its candidate. known: those that an earlier attempt has begun."""
    begun = {one.folder: one for one in known}
    rates = [] if spec.learning_rate is None else spec.learning_rate.rates(train.optimizer.lr)
    plan = [TrialTraining(f"{SWEEP}/{rate}", train.seed, learning_rate=rate) for rate in rates]
    plan += [TrialTraining(_folder(place), seed_after(train, place)) for place in range(spec.seeds)]
    return [begun.get(one.folder, one) for one in plan]


def seed_after(train: TrainSpec, place: int) -> int:
    """The seed that comes so many places after that of a train spec."""
    return int((train.seed + place) % SEEDS)


def tokens_of_trial(spec: SearchSpec, train: TrainSpec) -> int:
    """What a trial costs that is trained to the end. train: with the tokens of one training."""
    rates = [] if spec.learning_rate is None else spec.learning_rate.rates(train.optimizer.lr)
    return spec.seeds * train.tokens + len(rates) * (sweep_tokens(spec, train) if rates else 0)


def sweep_tokens(spec: SearchSpec, train: TrainSpec) -> int:
    """The tokens of a training that tries a learning rate."""
    assert spec.learning_rate is not None
    return round(spec.learning_rate.share * train.tokens)


def run_folders(trial: Path) -> list[Path]:
    """The run folders that are there in the folder of a trial."""
    return [trial / MAIN, *sorted(trial.glob(f"{FURTHER}/*")), *sorted(trial.glob(f"{SWEEP}/*"))]


def means(found: Sequence[Mapping[Name, float]]) -> dict[Name, float]:
    """The mean of each value. What one of them lacks is left out; of one alone the values are as they are."""
    return {name: _mean(row) for name, row in _rows(found)}


def spreads(found: Sequence[Mapping[Name, float]]) -> dict[Name, float]:
    """The standard error of each mean; of what is the same for all, such as parameters, there is none."""
    return {name: _standard_error(row) for name, row in _rows(found) if len(set(row)) > 1}


def _folder(place: int) -> str:
    return f"{FURTHER}/{place}" if place else MAIN


def _rows(found: Sequence[Mapping[Name, float]]) -> Iterator[tuple[Name, list[float]]]:
    for name in found[0]:
        if all(name in one for one in found):
            yield name, [one[name] for one in found]


def _mean(row: Sequence[float]) -> float:
    if len(set(row)) == 1:
        return row[0]
    return math.fsum(row) / len(row) if all(map(math.isfinite, row)) else math.nan


def _standard_error(row: Sequence[float]) -> float:
    mean = _mean(row)
    if not math.isfinite(mean):
        return math.nan
    return math.sqrt(math.fsum((value - mean) ** 2 for value in row) / (len(row) - 1) / len(row))
