"""What is in a study folder, as plain data: what the report, `status` and `promote` read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.search.leases import live_lease
from miniwin.search.outcome import TRAINED, Outcome
from miniwin.search.study import BASELINE, EXHAUSTED, Study, find_study
from miniwin.specs import ModelSpec, SearchSpec, TrainSpec, UserError, parse_spec
from miniwin.specs.search import Objective

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study; the baseline has number -1.

    state: complete, pruned (also a run that diverged), running (`alive` says whether a process works on it now),
    failed, infeasible (broke a constraint), duplicate (the same architecture as trial `duplicate_of`). The last two
    cost nothing. values: the objectives by name, such as "loss@4096". losses: nats per byte by length. rungs:
    measurements on the way.
    """

    number: int
    state: str
    params: dict[str, Any]
    values: dict[str, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    constraints: dict[str, float] = field(default_factory=dict)
    spec: ModelSpec | None = None
    train: TrainSpec | None = None
    seed: int | None = None
    hash: str | None = None
    layout: str = ""
    seconds: float = 0.0
    tokens: int = 0
    attempts: int = 0
    reason: str | None = None
    duplicate_of: int | None = None
    run_folder: Path | None = None
    alive: bool = False

    @property
    def label(self) -> str:
        return "baseline" if self.number < 0 else f"trial {self.number}"

    @property
    def trained(self) -> bool:
        """Whether it counts towards the budget."""
        return self.state in TRAINED

    @property
    def bits_per_byte(self) -> dict[int, float]:
        return {length: loss / math.log(2) for length, loss in self.losses.items()}


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

    @property
    def name(self) -> str:
        return self.spec.name

    @property
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
        """Whether the budget is spent, or the space exhausted, and the baseline, if there is one, is trained."""
        over = self.baseline is None or self.baseline.trained
        if any(trial.state == "running" for trial in self.trials):
            return False
        spent = len(self.trained) >= self.spec.budget.trials
        return over and (spent or (self.exhausted and not any(trial.state == "failed" for trial in self.trials)))

    @property
    def front(self) -> list[TrialRecord]:
        """The completed trials that no other beats in every objective; with one objective, the best alone."""
        scored = [(self._costs(trial), trial) for trial in self.completed]
        if len(self.objectives) == 1:
            return [min(scored, key=lambda pair: (pair[0], pair[1].number))[1]] if scored else []
        return [trial for costs, trial in scored if not any(_dominates(other, costs) for other, _ in scored)]

    @property
    def best(self) -> TrialRecord | None:
        """The best trial. With several objectives: the one of the front with the lowest loss, or, where loss is no
        objective, the best in the first one."""
        by = next((i for i, o in enumerate(self.objectives) if o.metric in ("loss", "bits_per_byte")), 0)
        return min(self.front, key=lambda trial: (self._costs(trial)[by], trial.number), default=None)

    def trial(self, number: int) -> TrialRecord:
        for trial in self.trials:
            if trial.number == number:
                return trial
        numbers = f"0 to {self.trials[-1].number}" if self.trials else "none yet"
        raise UserError(f"{self.folder} has no trial {number}; its trials are {numbers}")

    def _costs(self, trial: TrialRecord) -> tuple[float, ...]:
        """The objectives with the sign turned so that less is better."""
        return tuple(
            trial.values[o.name] if o.direction == "minimize" else -trial.values[o.name] for o in self.objectives
        )


def read_study(ref: str | Path) -> StudyData:
    """What is in a study: `ref` is its folder or its name."""
    return collect(Study(find_study(ref), reading=True))


def collect(study: Study) -> StudyData:
    """The same of a study that is open. Reads only: safe while it runs."""
    trials = []
    for trial in study.optuna.get_trials(deepcopy=False):
        record = study.settled.get(trial.number) or _record(study, trial)
        if record is not None:
            trials.append(record)
            if trial.state.is_finished() and record.state != "failed":  # a failed one may be tried again
                study.settled[trial.number] = record
    exhausted = bool(study.optuna.user_attrs.get(EXHAUSTED))
    baseline = None
    if study.baseline is not None:
        baseline = _from_outcome(study, -1, study.read_baseline(), study.folder / BASELINE, None)
    return StudyData(study.folder, study.spec, study.base, study.space.train, trials, baseline, exhausted)


def _record(study: Study, trial: optuna.trial.FrozenTrial) -> TrialRecord | None:
    state = trial.user_attrs.get("state", "running")
    finished = trial.state.is_finished()
    if finished and state in ("infeasible", "duplicate"):
        return TrialRecord(
            trial.number,
            state,
            dict(trial.params),
            constraints=dict(trial.constraints),
            reason=trial.user_attrs.get("reason"),
            duplicate_of=trial.user_attrs.get("duplicate_of"),
        )
    hash = trial.user_attrs.get("hash")
    if hash is None:  # waiting in the queue, or being looked at this moment
        return None
    folder = study.trial_folder(hash)
    outcome = Outcome.read(folder)
    if outcome is None or outcome.number != trial.number:
        if not finished:
            return None
        # A failed trial whose folder a later attempt has taken over.
        return TrialRecord(trial.number, state, dict(trial.params), hash=hash, reason=trial.user_attrs.get("reason"))
    # Between the outcome being written down and Optuna being told, the trial is still running.
    return _from_outcome(study, trial.number, outcome, folder, None if finished else "running")


def _from_outcome(study: Study, number: int, outcome: Outcome, folder: Path, state: str | None) -> TrialRecord:
    lease = study.lease_path(None if number < 0 else number)
    return TrialRecord(
        number,
        state or outcome.state,
        dict(outcome.params),
        dict(outcome.values),
        dict(outcome.losses),
        list(outcome.rungs),
        dict(outcome.constraints),
        parse_spec(outcome.model, "model"),
        parse_spec(outcome.train, "train"),
        outcome.seed,
        outcome.hash,
        outcome.layout,
        outcome.seconds,
        outcome.tokens,
        outcome.attempts,
        outcome.reason,
        None,
        folder / "run",
        live_lease(lease) is not None,
    )


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
