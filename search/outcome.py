"""trial.json: everything that is known of one trained architecture, replaced as a whole whenever more is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miniwin.json_files import JSONProblem, read_json
from miniwin.search.candidate import Candidate
from miniwin.search.space import Assignment
from miniwin.specs import UserError
from miniwin.writing import said_if_unwritable, write_json

FORMAT = 1
FILE = "trial.json"
TRAINED = ("complete", "pruned")  # states that count towards the budget
FINAL = (*TRAINED, "failed")


@dataclass
class Outcome:
    """One trial, or the baseline (`number` None).

    `values` are the objectives, by name; `losses` are nats per byte by length; `rungs` are measurements on the way:
    [{"tokens": ..., "values": {...}}, ...]. `attempts` counts the processes that worked on it.
    """

    number: int | None
    state: str  # running, complete, pruned, failed
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
    seconds: float = 0.0  # training and evaluation, over all attempts that got to a checkpoint
    attempts: int = 0
    deaths: int = 0  # attempts since training last got further
    started: str = ""
    finished: str | None = None

    @classmethod
    def begin(cls, number: int | None, assignment: Assignment, candidate: Candidate) -> Outcome:
        return cls(
            number,
            "running",
            candidate.hash,
            assignment.values,
            candidate.model.layout,
            candidate.train.seed,
            candidate.model.model_dump(mode="json"),
            candidate.train.model_dump(mode="json"),
            assignment.constraints,
            attempts=1,
            started=_now(),
        )

    def go_on_from(self, before: Outcome, run: Path) -> None:
        """This is the next attempt at the same trial: what was measured stays."""
        self.rungs, self.started = before.rungs, before.started
        self.attempts = before.attempts + 1
        self.tokens = max(_tokens(run), before.tokens)
        further = self.tokens > before.tokens or before.state == "failed"  # or the user asked for another try
        self.deaths = 0 if further else before.deaths + 1

    @property
    def over(self) -> bool:
        return self.state in FINAL

    def end(self, state: str, reason: str | None = None) -> None:
        self.state, self.reason, self.finished = state, reason, _now()

    def write(self, folder: Path) -> None:
        with said_if_unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """The outcome in a folder, or None where there is none yet."""
        path = folder / FILE
        try:
            data = read_json(path)
        except FileNotFoundError:
            return None
        except JSONProblem as error:
            raise UserError(f"{path} is {error}; expected the file that `miniwin search` wrote") from None
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise UserError(f"{path} has another format; this version of miniwin reads format {FORMAT}")
        try:
            data["losses"] = {
                int(length): float("nan") if loss is None else loss for length, loss in data["losses"].items()
            }
            return cls(**data)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path} has other fields than the file that `miniwin search` wrote; restore it") from None


def _tokens(run: Path) -> int:
    """How far training has got, by its last checkpoint."""
    try:
        return int(read_json(run / "run.json")["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
