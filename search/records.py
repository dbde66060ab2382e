"""What is in a study folder, as plain data, for the report, `status` and `promote`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from miniwin.search.candidate import Candidate, at_rate
from miniwin.search.confirm.plan import Confirmation, find_confirmation
from miniwin.search.entries import OUTCOME
from miniwin.search.history import continued, is_paused
from miniwin.search.journal import Told
from miniwin.search.ladder.standing import Ladder, find_ladder
from miniwin.search.later import Later
from miniwin.search.leases import live
from miniwin.search.objectives import chief
from miniwin.search.outcome import FILE, ORIGIN, TRAINED, Outcome, Specs
from miniwin.search.study import EXHAUSTED, Study, find_study
from miniwin.search.trainings import Training
from miniwin.search.trial_trainings import MAIN, TrialTraining, run_folders
from miniwin.specs import ModelSpec, SearchSpec, TrainSpec, UserError, parse_spec
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
        return next((one.tokens for one in self.trainings if one.folder == MAIN), self.tokens)

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


def read_study(ref: str | Path) -> StudyData:
    """What is in a study. ref: its folder or its name."""
    return collect(Study(find_study(ref), reading=True))


def collect(study: Study) -> StudyData:
    """What is in a study that is open. Nothing is written, so the study may be running.

    A trial whose files are gone or damaged has what the journal says of it, and a problem.
    """
    trials = []
    known = study.known()
    further = continued(known.trials)
    for trial in known.trials:
        if (new := further.get(trial.number)) is not None:
            reason = f"goes on as trial {new}"
            values = study.space.decode(trial.params)
            trials.append(TrialRecord(trial.number, "duplicate", values, reason=reason, duplicate_of=new))
            continue
        record = study.ended.get(trial.number) or _record(study, trial)
        if record is not None:
            trials.append(record)
            if trial.ended and record.state != "failed":  # a failed one may be tried again
                study.ended[trial.number] = record
    exhausted = bool(known.user_attrs.get(EXHAUSTED))
    baseline = None if study.baseline is None else _baseline(study, known.user_attrs)
    size = study.space.variables.size if exhausted else math.inf
    data = StudyData(
        study.folder,
        study.spec,
        study.base,
        study.space.train,
        trials,
        baseline,
        exhausted,
        size,
        ladder=find_ladder(study, known.user_attrs),
    )
    asked = study.spec.confirm
    if asked is None:
        return data
    chosen = [(trial.number, trial.params) for trial in data.ranked[: asked.top]] if data.searched else None
    confirmation = find_confirmation(study, chosen, len(data.trained), data.rates, known.user_attrs)
    return replace(data, confirmation=confirmation)


def with_specs(data: StudyData) -> StudyData:
    """The study with all specs read. A trial whose specs cannot be read has none, and a problem."""
    return replace(
        data, trials=list(map(_read, data.trials)), baseline=None if data.baseline is None else _read(data.baseline)
    )


def _read(trial: TrialRecord) -> TrialRecord:
    try:
        _ = trial.spec, trial.train
    except UserError as error:
        return replace(trial, spec=None, train=None, problem=str(error))
    return trial


def _record(study: Study, trial: Told) -> TrialRecord | None:
    state, reason = trial.user_attrs.get("state", "running"), trial.user_attrs.get("reason")
    if trial.ended and state in ("infeasible", "duplicate"):
        same = trial.user_attrs.get("duplicate_of")
        values = study.space.decode(trial.params)
        return TrialRecord(trial.number, state, values, constraints=trial.constraints, reason=reason, duplicate_of=same)
    hash = trial.user_attrs.get("hash")
    if hash is None:  # waits in the queue, or is being claimed at this moment
        return None
    folder = os.path.join(study.place.folder, "trials", str(hash)[:12])  # thousands of Paths take their time
    found, problem = _outcome(study, trial, folder)
    if found is not None and found[0].number == trial.number:
        # The outcome may be written and Optuna not yet told: then the trial is still running.
        now = "paused" if is_paused(trial.user_attrs) else "running"
        if trial.ended:  # a trial that was paused to the end is pruned, and its outcome does not know
            now = state if found[0].state == "paused" else found[0].state
        alive = now not in TRAINED and live(study.lease_seen(trial)) is not None
        return _from_outcome(trial.number, *found, folder, now, alive and not trial.ended)
    if not trial.ended and problem is None:
        return None
    if found is None:
        problem = problem or f"{_where(study, folder)} is gone"
    elif state in TRAINED:
        problem = f"{_where(study, folder)} is of trial {found[0].number}"
    # The files are lost; or the trial failed, and a later trial has taken its folder over.
    values = dict(zip((o.name for o in study.spec.parsed_objectives), trial.values, strict=False))
    known: dict[str, Any] = {"constraints": trial.constraints, "hash": hash, "reason": reason, "problem": problem}
    known["origin"] = trial.user_attrs.get(ORIGIN)
    params = study.space.decode(trial.params)
    return TrialRecord(trial.number, state, params, values, layout=str(trial.user_attrs.get("layout", "")), **known)


def _outcome(study: Study, trial: Told, folder: str) -> tuple[tuple[Outcome, Specs] | None, str | None]:
    """(the outcome of a trial with its specs, None) or (None, what is wrong with it, if there is something)"""
    try:
        if not study.stored:
            return Outcome.skim(folder), None
        said = trial.user_attrs.get(OUTCOME)
        if said is None:
            return None, None
        outcome = Outcome.of_attribute(said)
        return (outcome, lambda: _specs(study.space.assign(outcome.params).candidate)), None
    except UserError as error:
        return None, str(error)


def _where(study: Study, folder: str) -> str:
    return f"its attribute {OUTCOME!r} in the storage" if study.stored else os.path.join(folder, FILE)


def _specs(candidate: Candidate | None) -> dict[str, Any]:
    """The specs of a trial whose outcome is kept without them."""
    if candidate is None:
        raise UserError("its parameters make no architecture any more: the base specs have changed")
    return {"model": candidate.model.model_dump(mode="json"), "train": candidate.train.model_dump(mode="json")}


def _baseline(study: Study, seen: Mapping[str, Any]) -> TrialRecord:
    folder, entry, problem, found = study.baseline_folder, study.baseline_entry(seen), None, None
    try:
        if not study.stored:
            found = Outcome.skim(folder)
        elif (outcome := entry.outcome()) is not None:
            found = outcome, lambda: _specs(study.baseline_candidate())
    except UserError as error:
        problem = str(error)
    outcome, specs = found or _not_yet(study)
    alive = outcome.state not in TRAINED and live(entry.lease()) is not None
    record = _from_outcome(-1, outcome, specs, str(folder), outcome.state, alive)
    return record if problem is None else replace(record, problem=problem)


def _not_yet(study: Study) -> tuple[Outcome, Specs]:
    outcome = study.new_baseline()
    return outcome, lambda: {"model": outcome.model, "train": outcome.train}


def _from_outcome(number: int, outcome: Outcome, specs: Specs, folder: str, state: str, alive: bool) -> TrialRecord:
    """state: in place of the outcome's own. folder: of the trial."""
    return TrialRecord(
        number=number,
        state=state,
        spec=partial(_spec, specs, "model"),
        train=partial(_train_of, specs, outcome.learning_rate),
        run_folder=Path(folder) / "run",
        alive=alive,
        **{name: getattr(outcome, name) for name in SHARED},
    )


def _train_of(specs: Specs, rate: float | None) -> Any:
    train = _spec(specs, "train")
    return train if rate is None else at_rate(train, rate)


def _spec(specs: Specs, kind: str) -> Any:
    data = specs()[kind]
    # Most trials of a study are trained alike.
    return parse_spec(data, kind) if kind == "model" else _train_spec(json.dumps(data))


@lru_cache(maxsize=64)
def _train_spec(text: str) -> Any:
    return parse_spec(json.loads(text), "train")


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
