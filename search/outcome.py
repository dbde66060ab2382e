"""trial.json: all that is known of one trained architecture. The file is replaced as a whole when more is known."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from miniwin.files.json_files import DEEPEST, LARGEST, JSONProblem, parse_json, read_json
from miniwin.files.writing import finite, said_if_unwritable, write_json
from miniwin.search.candidate import Candidate
from miniwin.search.space import Assignment
from miniwin.search.trial_trainings import TrialTraining, run_folders
from miniwin.specs import UserError

FORMAT = 1
FILE = "trial.json"
TRAINED = ("complete", "pruned")  # states that count towards the budget
FINAL = (*TRAINED, "failed")
ORIGIN = "origin"  # attribute of a trial in Optuna: of one that was taken from another study, as it is


@dataclass
class Outcome:
    """One trial, or the baseline (`number` None).

    values: the objectives by name. losses: nats per byte by length. rungs: measurements while training,
    [{"tokens": ..., "values": {...}}, ...]. attempts: how many processes have worked on it. Of a trial of several
    trainings, these are means over the seeds, `spread` has their standard errors, and tokens and seconds are sums.
    """

    number: int | None
    state: str  # running, paused, complete, pruned, failed
    hash: str
    params: dict[str, Any]
    layout: str
    seed: int
    model: dict[str, Any]
    train: dict[str, Any]
    constraints: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    tokens: int = 0
    seconds: float = 0.0  # of training and evaluation, in all attempts that got to a checkpoint
    attempts: int = 0
    deaths: int = 0  # attempts that did not get training further, since the last that did
    started: str = ""
    finished: str | None = None
    # Only in the file if they say something:
    origin: str | None = None  # the trial of another study that this was taken from as it is
    spread: dict[str, float] = field(default_factory=dict)
    trainings: list[TrialTraining] = field(default_factory=list)  # if there are several
    learning_rate: float | None = None  # that the sweep chose
    rate_at_edge: bool | None = None  # it is the lowest or the highest of the sweep
    repeated_tokens: int = 0  # of trainings that began anew, since their checkpoint was gone; `tokens` has them too
    repeated_seconds: float = 0.0

    @classmethod
    def begin(cls, number: int | None, assignment: Assignment, candidate: Candidate) -> Outcome:
        return cls(
            number,
            "running",
            candidate.hash,
            assignment.values,
            candidate.model.layout,
            candidate.train.seed,
            **candidate.specs,
            constraints=assignment.constraints,
            attempts=1,
            started=_now(),
        )

    def go_on_from(self, before: Outcome, folder: Path) -> None:
        """Make this the next attempt at the same trial: measurements stay. folder: of the trial."""
        self.rungs, self.started, self.trainings = before.rungs, before.started, before.trainings
        if before.learning_rate is not None:
            self.take_rate(before.learning_rate, bool(before.rate_at_edge))
        self.attempts = before.attempts + 1
        self.repeated_tokens, self.repeated_seconds = before.repeated_tokens, before.repeated_seconds
        self.tokens = max(self.tokens_by(folder), before.tokens)
        # Or nobody died: the user asked for another try, or the trial has waited at a rung.
        further = self.tokens > before.tokens or before.state in ("failed", "paused")
        self.deaths = 0 if further else before.deaths + 1

    def rung(self, rungs: Sequence[int]) -> int:
        """The last rung that it has reached; -1 if none. rungs: those of its study, in tokens."""
        reached = {rung["tokens"] for rung in self.rungs}
        return max((index for index, tokens in enumerate(rungs) if tokens in reached), default=-1)

    @property
    def over(self) -> bool:
        return self.state in FINAL

    def take_rate(self, rate: float, at_edge: bool) -> None:
        """The learning rate is chosen: the trainings that count are trained with it."""
        self.learning_rate, self.rate_at_edge = rate, at_edge
        self.train = {**self.train, "optimizer": {**self.train["optimizer"], "lr": rate}}
        for training in self.trainings:
            if not training.sweeps:
                training.learning_rate = rate

    def add_up(self, trainings: Sequence[TrialTraining]) -> None:
        """What the trial has cost is what its trainings have cost."""
        self.tokens = sum(one.tokens for one in trainings) + self.repeated_tokens
        self.seconds = math.fsum(one.seconds for one in trainings) + self.repeated_seconds

    def tokens_by(self, folder: Path) -> int:
        """What the trial has cost by the checkpoints in its folder."""
        return tokens_in(folder) + self.repeated_tokens

    def count_repeated(self, training: TrialTraining, run: Path) -> None:
        """A training begins anew, since its checkpoint is gone: what it had cost by then still counts. run: its
        folder."""
        try:
            record = read_json(run / "run.json", names=True)
            tokens, seconds = int(record["tokens"]), float(record["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # it had no checkpoint yet
        write_json(run / "run.json", {**record, "tokens": 0})  # or they would count twice after a kill
        self.repeated_tokens, self.repeated_seconds = self.repeated_tokens + tokens, self.repeated_seconds + seconds
        training.tokens, training.seconds = 0, 0.0

    def end(self, state: str, reason: str | None = None) -> None:
        self.state, self.reason, self.finished = state, reason, _now()

    def pause(self, reason: str) -> None:
        """It waits at the last rung: no process works on it, and it may go on."""
        self.state, self.reason = "paused", reason

    def write(self, folder: Path) -> None:
        with said_if_unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, self._said())

    def to_attribute(self) -> dict[str, Any]:
        """As an attribute in Optuna, without the specs: these follow from the parameters."""
        said: dict[str, Any] = finite(self._said())
        del said["model"], said["train"]
        return said

    @classmethod
    def of_attribute(cls, said: Any) -> Outcome:
        """The outcome that `to_attribute` gave, with empty specs. UserError if it is something else."""
        copied = {**json.loads(json.dumps(said)), "model": {}, "train": {}} if isinstance(said, dict) else said
        return cls._of("the attribute of an outcome", copied)

    def _said(self) -> dict[str, Any]:
        fields = asdict(self)
        for name in ("origin", "spread", "trainings", "learning_rate", "rate_at_edge"):
            if fields[name] in (None, {}, []):
                del fields[name]
        if not self.repeated_tokens:
            del fields["repeated_tokens"], fields["repeated_seconds"]
        return {"format": FORMAT, **fields}

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """The outcome in a folder, or None if there is none yet."""
        path = f"{folder}{os.sep}{FILE}"
        text = _text(path)
        return None if text is None else cls._of(path, _fields(path, text))

    @classmethod
    def read_sound(cls, folder: Path) -> Outcome | None:
        """The outcome in a folder, or None if there is none that can be read.

        The next worker then writes a new outcome. The checkpoint is in run/ all the same, and training goes on there.
        """
        try:
            return cls.read(folder)
        except UserError:
            return None

    @classmethod
    def skim(cls, folder: str | Path) -> tuple[Outcome, Specs] | None:
        """The outcome without its specs, and a function that reads the specs.

        The specs are most of the file, and a study may have thousands of trials.
        """
        path = f"{folder}{os.sep}{FILE}"
        text = _text(path)
        if text is None:
            return None
        # JSON text holds no line break, so these can only be fields of the file.
        start = text.find(b'\n  "model": {')
        end = text.find(b'\n  "constraints": {', start)
        if 0 <= start < end:
            rest = b'%s"model": {}, "train": {},%s' % (text[:start], text[end:])
            # parse_json also refuses deep nesting and halves of surrogate pairs: `rest` has neither.
            if b"\\u" not in rest and rest.count(b"[") + rest.count(b"{") <= DEEPEST:
                with suppress(ValueError):  # the whole file is read below, which says what is wrong
                    outcome = cls._of(path, json.loads(rest))
                    return outcome, cache(lambda: _fields(path, b"{%s}" % text[start:end].rstrip(b",")))
        outcome = cls._of(path, _fields(path, text))
        return outcome, lambda: {"model": outcome.model, "train": outcome.train}

    @classmethod
    def _of(cls, path: str, data: Any) -> Outcome:
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise UserError(f"{path} has another format; this version of miniwin reads format {FORMAT}")
        try:
            for name, kind in _KINDS.items():
                if not isinstance(data[name], kind):
                    raise TypeError
            _take_measured(data)
            for training in data.get("trainings", ()):
                _take_measured(training)
            data["trainings"] = [TrialTraining.of(training) for training in data.get("trainings", ())]
            data["spread"] = {name: _number(value) for name, value in data.get("spread", {}).items()}
            return cls(**data)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path} has other fields than the file that `miniwin search` wrote; restore it") from None


Specs = Callable[[], dict[str, Any]]  # gives {"model": ..., "train": ...}

_NUMBER, _NONE = (int, float), type(None)
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("params", "model", "train", "constraints", "values", "losses"), dict),
    **dict.fromkeys(("state", "hash", "layout", "started"), str),
    **dict.fromkeys(("seed", "tokens", "attempts", "deaths"), int),
    **{"number": (int, _NONE), "rungs": list, "seconds": _NUMBER, "reason": (str, _NONE), "finished": (str, _NONE)},
}


def _take_measured(data: dict[str, Any]) -> None:
    """Make numbers of what was measured, at the end and at rungs; TypeError and the like if it is something else."""
    for rung in data["rungs"]:
        int(rung["tokens"]), rung["values"].items()
    data["losses"] = {int(length): _number(loss) for length, loss in data["losses"].items()}
    for found in (data["values"], *(rung["values"] for rung in data["rungs"])):
        found.update({name: _number(value) for name, value in found.items()})


def _number(value: Any) -> float:
    """A number of the file. JSON has no name for a number that is not finite: null stands for it."""
    if value is None:
        return float("nan")
    if not isinstance(value, _NUMBER):
        raise TypeError(value)
    return value


def _text(path: str) -> bytes | None:
    """The bytes of the file, or None if there is no file."""
    try:
        with open(path, "rb", buffering=0) as file:  # one read, for thousands of small files
            if os.fstat(file.fileno()).st_size > LARGEST:
                raise UserError(f"{path} is larger than {LARGEST >> 20} MiB; expected the file of a trial")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected the file of a trial") from None


def _fields(path: str, text: bytes) -> Any:
    try:
        return parse_json(text, names=True)
    except JSONProblem as error:
        raise UserError(f"{path} is {error}; expected the file that `miniwin search` wrote") from None


def tokens_in(folder: Path) -> int:
    """How far all trainings of a trial have got. folder: of the trial."""
    return sum(map(_tokens, run_folders(folder)))


def _tokens(run: Path) -> int:
    """How far training has got, by its last checkpoint."""
    try:
        return int(read_json(run / "run.json", names=True)["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
