"""Read Optuna's journal file, quickly and without writing.

Optuna itself takes seconds to import, and seconds more to replay a journal with thousands of trials. It makes a file
if there is none, and ends in a KeyError if the study is not in the file. To look at a study, a part of the journal is
enough: the state, parameters, values and attributes of each trial.

The format is Optuna's (optuna/storages/journal). A line is a JSON object, and its `op_code` says what was done. A trial
that has ended does not change again. tests/search/test_journal.py compares this reader with Optuna. A line that is not
known here is left to Optuna, so a file is only damaged if Optuna finds it damaged, too.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.specs import UserError

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

JOURNAL = "journal.log"

_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")  # by their numbers in the file
_ENDED = _STATES[1:4]
_CONSTRAINT = "constraints:"
(
    _CREATE_STUDY,
    _DELETE_STUDY,
    _STUDY_USER_ATTR,
    _STUDY_SYSTEM_ATTR,
    _CREATE_TRIAL,
    _PARAM,
    _STATE_VALUES,
    _INTERMEDIATE,
    _USER_ATTR,
    _SYSTEM_ATTR,
) = range(10)
_KINDS: dict[str, type | None] = {"IntDistribution": int, "FloatDistribution": float, "CategoricalDistribution": None}
_LAST = 10  # DISCARD_TRIALS, which changes nothing here


@dataclass(slots=True)
class Told:
    """A trial as Optuna knows it. state: RUNNING, COMPLETE, PRUNED, FAIL or WAITING."""

    number: int
    state: str
    params: dict[str, Any] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    constraints: dict[str, float] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in _ENDED


@dataclass
class Known:
    """A study as Optuna knows it: its trials and its attributes."""

    trials: list[Told] = field(default_factory=list)
    user_attrs: dict[str, Any] = field(default_factory=dict)


class Journal:
    """A journal file. Each `read` goes on where the last one ended, so it may be called again and again."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self._name = path, name
        self._forget()

    def _forget(self) -> None:
        self._file: tuple[int, int] | None = None
        self._offset = self._lines = 0
        self._studies: list[str | None] = []  # names by id; None: deleted
        self._known: Known | None = None
        self._trials: list[Told | None] = []  # by Optuna's id; None: a trial of another study in the file
        self._choices: dict[str, Any] = {}
        self._distributions: dict[str, str] = {}  # the first distribution of each parameter

    def read(self) -> Known | None:
        """The study as it stands, or None if the file is missing or has no such study."""
        try:
            with open(self.path, "rb") as file:
                about = os.fstat(file.fileno())
                same = self._file == (about.st_dev, about.st_ino) and about.st_size >= self._offset
                if not same:
                    self._forget()
                    self._file = about.st_dev, about.st_ino
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            self._forget()
            return None
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}); expected the journal of the study's trials"
            ) from None
        whole = new[: new.rfind(b"\n") + 1]  # a last line without an end is still written, or its writer was killed
        for entry in self._entries(whole):
            self._lines += 1
            try:
                self._apply(entry)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                return self._replayed(self._lines)
        self._offset += len(whole)
        return self._known

    def _entries(self, text: bytes) -> list[Any]:
        lines = text.split(b"\n")[:-1]
        try:  # all at once takes a third of the time
            entries = json.loads(b"[" + b",".join(lines) + b"]")
            if len(entries) == len(lines):
                return entries  # type: ignore[no-any-return]
        except (ValueError, RecursionError):
            pass
        sound = 0
        with suppress(ValueError, RecursionError):
            for line in lines:
                json.loads(line)
                sound += 1
        raise self._damaged(self._lines + sound + 1)

    def _replayed(self, line: int) -> Known | None:
        """What Optuna makes of a file with a line that is not known here. Nothing is written here either."""
        import optuna

        from miniwin.search.storage import open_journal

        self._forget()
        try:
            storage = open_journal(self.path)
        except Exception:  # of any kind: Optuna expects to read what it wrote
            raise self._damaged(line) from None
        try:
            return from_optuna(optuna.load_study(study_name=self._name, storage=storage))
        except KeyError:
            return None

    def _damaged(self, line: int) -> UserError:
        self._forget()
        return UserError(
            f"{self.path}:{line}: this is no line of Optuna's journal, so what was tried is not known; put the file "
            f"back from a copy. What was trained is still in {self.path.parent / 'trials'}"
        )

    def _apply(self, entry: dict[str, Any]) -> None:
        op = entry["op_code"]
        if not 0 <= op <= _LAST:
            raise ValueError(op)
        if _PARAM <= op <= _SYSTEM_ATTR:
            place = entry["trial_id"]
            trial = self._trials[place] if 0 <= place < len(self._trials) else None
            if trial is None or trial.state in _ENDED:
                return  # of another study, or too late
            if op == _PARAM:
                name, distribution = entry["param_name"], entry["distribution"]
                if self._distributions.setdefault(name, distribution) != distribution:
                    raise ValueError(distribution)  # whether this is allowed, Optuna decides
                trial.params[name] = self._external(distribution, entry["param_value_internal"])
            elif op == _STATE_VALUES:
                trial.state = _STATES[entry["state"]]
                if entry["values"] is not None:
                    trial.values = [float(value) for value in entry["values"]]
            elif op == _USER_ATTR:
                trial.user_attrs.update(entry["user_attr"])
            elif op == _SYSTEM_ATTR:
                trial.constraints.update(_constraints(entry["system_attr"]))
        elif op == _CREATE_TRIAL:
            name = self._studies[entry["study_id"]]
            if name is not None:
                self._trials.append(self._made(entry) if name == self._name else None)
        elif op == _CREATE_STUDY:
            name = entry["study_name"]
            if name not in self._studies:
                self._studies.append(name)
                if name == self._name:
                    self._known = Known()
        elif op == _STUDY_USER_ATTR:
            if self._known is not None and self._studies[entry["study_id"]] == self._name:
                self._known.user_attrs.update(entry["user_attr"])
        elif op == _DELETE_STUDY:
            if self._studies[entry["study_id"]] == self._name:
                self._known = None
            self._studies[entry["study_id"]] = None

    def _made(self, entry: dict[str, Any]) -> Told:
        """A trial from its first line, which of a queued trial says more than the state."""
        assert self._known is not None
        given = entry.get("distributions", {})
        for name, distribution in given.items():
            self._distributions.setdefault(name, distribution)
        trial = Told(
            len(self._known.trials),
            _STATES[entry.get("state", 0)],
            {name: self._external(given[name], value) for name, value in entry.get("params", {}).items()},
            dict(entry.get("user_attrs", {})),
            _constraints(entry.get("system_attrs", {})),
        )
        values = entry.get("values") or ([] if entry.get("value") is None else [entry["value"]])
        trial.values = [float(value) for value in values]
        self._known.trials.append(trial)
        return trial

    def _external(self, distribution: str, value: Any) -> Any:
        """A parameter as it was suggested. The file has the index of a choice, and may write a whole number as 3.0."""
        known = self._choices.get(distribution)
        if known is None:
            said = json.loads(distribution)
            known = self._choices[distribution] = (_KINDS[said["name"]], said["attributes"].get("choices"))
        kind, choices = known
        return choices[int(value)] if kind is None else kind(value)


def _constraints(system_attrs: dict[str, Any]) -> dict[str, float]:
    """The constraints among Optuna's own attributes of a trial. ValueError for the older format, a list."""
    if "constraints" in system_attrs:
        raise ValueError("constraints")
    of = {key.removeprefix(_CONSTRAINT): value for key, value in system_attrs.items() if key.startswith(_CONSTRAINT)}
    return {key: float(value) for key, value in of.items()}


def from_optuna(study: OptunaStudy) -> Known:
    """What Optuna knows of a study, asked of Optuna itself: for any storage."""
    trials = [
        Told(
            trial.number,
            trial.state.name,
            dict(trial.params),
            dict(trial.user_attrs),
            dict(trial.constraints),
            list(trial.values or ()),
        )
        for trial in study.get_trials(deepcopy=False)
    ]
    return Known(trials, dict(study.user_attrs))
