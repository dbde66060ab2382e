"""A study as it stands: its trials, the best of them, and whether it is over. records.py reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from miniwin.search.confirm.plan import Confirmation
from miniwin.search.ladder.standing import Ladder
from miniwin.search.later import Later
from miniwin.search.objectives import chief
from miniwin.search.outcome import TRAINED, Outcome
from miniwin.search.trainings import Training
from miniwin.search.trial_trainings import MAIN, TrialTraining, run_folders
from miniwin.specs import ModelSpec, SearchSpec, TrainSpec, UserError
from miniwin.specs.objectives import Objective


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study; the baseline has number -1.

    params: the values of the variables; one whose conditions do not hold has none.
    state: complete, pruned (also a run that diverged), running (`alive`: a process works on it now), paused (at its
    last rung, where others are better so far), failed, infeasible (broke a constraint), duplicate (the same
    architecture as trial `duplicate_of`). The last two cost nothing. values: the objectives by name, such as
    "loss@4096". losses: nats per byte by length. rungs: measurements while training. spread: standard errors of the
    values, where they are means over several seeds; `trainings` has these seeds. problem: what is wrong with the
    trial's files; its other fields then come from the study's journal.
    """

    number: int
    state: str
    params: dict[str, Any]
    values: dict[str, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    constraints: dict[str, float] = field(default_factory=dict)
    spec: Later[ModelSpec] = Later()  # noqa: RUF009
    train: Later[TrainSpec] = Later()  # noqa: RUF009
    seed: int | None = None
    hash: str | None = None
    layout: str = ""
    seconds: float = 0.0
    tokens: int = 0
    attempts: int = 0
    started: str = ""
    finished: str | None = None
    reason: str | None = None
    duplicate_of: int | None = None
    run_folder: Path | None = None
    alive: bool = False
    problem: str | None = None
    origin: str | None = None  # the trial of another study that it was taken from as it is
    spread: dict[str, float] = field(default_factory=dict)
    trainings: list[TrialTraining] = field(default_factory=list)
    learning_rate: float | None = None  # that it has tuned; also in `train`
    rate_at_edge: bool | None = None  # it is the lowest or the highest that was tried
    repeated_tokens: int = 0  # of `tokens`, those of trainings that began anew, since their checkpoint was gone

    @property
    def run_folders(self) -> list[Path]:
        """Those of all its trainings."""
        if self.run_folder is None:
            return []
        return run_folders(self.run_folder.parent) if self.trainings else [self.run_folder]

    @property
    def rate_text(self) -> str:
        """The learning rate that it has tuned, and whether a better one may lie beyond those that were tried."""
        if self.learning_rate is None:
            return ""
        return f"{self.learning_rate:g}{' (edge)' if self.rate_at_edge else ''}"

    @property
    def tokens_each(self) -> int:
        """The tokens of one training: all, unless it has several."""
        return next((one.tokens for one in self.trainings if one.folder == MAIN), self.tokens - self.repeated_tokens)

    @property
    def label(self) -> str:
        return "baseline" if self.number < 0 else f"trial {self.number}"

    @property
    def standing(self) -> str:
        """Its state, and where it waits."""
        return f"paused at rung {len(self.rungs)}" if self.state == "paused" else self.state

    @property
    def waited_to_the_end(self) -> bool:
        """Whether it is pruned since it waited at a rung when the study was over: a larger budget may take it on."""
        return self.state == "pruned" and self.finished is None and self.problem is None

    @property
    def trained(self) -> bool:
        """Whether it counts towards the budget. One that was taken from another study does not."""
        return self.state in TRAINED and self.origin is None

    @property
    def bits_per_byte(self) -> dict[int, float]:
        return {length: loss / math.log(2) for length, loss in self.losses.items()}


# The fields that a record takes from its outcome as they are.
SHARED = tuple(
    sorted({f.name for f in fields(Outcome)} & {f.name for f in fields(TrialRecord)} - {"number", "state", "train"})
)


@dataclass(frozen=True)
class StudyData:
    """A study as it stands."""

    folder: Path
    spec: SearchSpec
    base: ModelSpec
    train: TrainSpec  # with the budget of a trial
    trials: list[TrialRecord]
    baseline: TrialRecord | None
    exhausted: bool = False  # every assignment of the variables has been tried
    assignments: float = math.inf  # how many there are, if they have all been tried
    confirmation: Confirmation | None = None
    ladder: Ladder | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        return self.spec.parsed_objectives

    @property
    def trained(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.trained]

    @property
    def completed(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: the trials are over, and confirmed, if that was asked for; so is a ladder."""
        confirmed = self.confirmation is None or self.confirmation.done
        return self.searched and confirmed and (self.ladder is None or self.ladder.done)

    @property
    def rates(self) -> dict[int | None, float | None]:
        """The learning rates that the complete trials, and the baseline (None), have tuned."""
        of_trials: dict[int | None, float | None] = {trial.number: trial.learning_rate for trial in self.completed}
        return of_trials if self.baseline is None else {**of_trials, None: self.baseline.learning_rate}

    @property
    def untrained(self) -> bool:
        """Whether trials are measured with the first weights as they are."""
        return bool(self.train.tokens == 0)

    @property
    def anew(self) -> list[tuple[str, Sequence[Training]]]:
        """What is trained when the trials are over, each with what it is for."""
        confirming = [] if self.confirmation is None else [("confirming", self.confirmation.trainings)]
        return confirming + ([] if self.ladder is None else [("ladder", self.ladder.every)])

    @property
    def searched(self) -> bool:
        """Whether the budget is spent, or the space exhausted, and the baseline, if there is one, is trained."""
        over = self.baseline is None or self.baseline.trained
        if any(trial.state in ("running", "paused") for trial in self.trials):
            return False
        spent = len(self.trained) >= self.spec.budget.trials
        return over and (spent or (self.exhausted and not any(trial.state == "failed" for trial in self.trials)))

    @cached_property
    def front(self) -> list[TrialRecord]:
        """The completed trials that no other trial beats in every objective; with one objective, the best alone."""
        names = [objective.name for objective in self.objectives]
        measured = [t for t in self.completed if all(math.isfinite(t.values.get(name, math.nan)) for name in names)]
        scored = sorted(((self._costs(trial), trial.number, trial) for trial in measured), key=lambda one: one[:2])
        if len(names) == 1:
            return [trial for _, _, trial in scored[:1]]
        # A trial that beats another comes first. So by its turn, a beaten trial is beaten by one on the front.
        front: list[tuple[tuple[float, ...], int, TrialRecord]] = []
        for one in scored:
            if not any(_dominates(other[0], one[0]) for other in reversed(front)):
                front.append(one)
        return sorted((trial for _, _, trial in front), key=lambda trial: trial.number)

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """The trials that may be confirmed, the best first: with one objective the complete ones, with several those of
        the front, by the chief objective."""
        by = self.objectives.index(chief(self.objectives))
        names = [objective.name for objective in self.objectives]
        found = self.front if len(names) > 1 else self.completed
        known = [t for t in found if all(math.isfinite(t.values.get(name, math.nan)) for name in names)]
        return sorted(known, key=lambda trial: (self._costs(trial)[by], trial.number))

    @cached_property
    def best(self) -> TrialRecord | None:
        """The best trial; with several objectives, the best of the front in the chief objective."""
        by = self.objectives.index(chief(self.objectives))
        return min(self.front, key=lambda trial: (self._costs(trial)[by], trial.number), default=None)

    @property
    def tuned(self) -> list[TrialRecord]:
        """The trials, and the baseline, that have tuned their learning rate."""
        every = [*self.trials, *([] if self.baseline is None else [self.baseline])]
        return [trial for trial in every if trial.learning_rate is not None]

    def trial(self, number: int) -> TrialRecord:
        for trial in self.trials:
            if trial.number == number:
                return trial
        numbers = f"0 to {self.trials[-1].number}" if self.trials else "none yet"
        raise UserError(f"{self.folder} has no trial {number}; its trials are {numbers}")

    def _costs(self, trial: TrialRecord) -> tuple[float, ...]:
        """The values of the objectives, with signs turned so that less is better."""
        return tuple(
            trial.values[o.name] if o.direction == "minimize" else -trial.values[o.name] for o in self.objectives
        )


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
