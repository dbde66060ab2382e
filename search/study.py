"""A study folder, opened.

    study.json        the id of the study, and where its storage is (study_json.py)
    search.yaml       what was asked
    model.yaml train.yaml baseline.yaml    the specs that search.yaml names
    journal.log       Optuna's study, unless the storage is at a URL
    trials/<hash>/    a trained architecture: trial.json, run/ (a run folder); the hash is of what decides the result
    baseline/         the same of the baseline
    leases/           which process works on which trial
    logs/             what the workers printed

creation.py makes the folder; claims.py hands out the work.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from miniwin.blocks.messages.listing import some
from miniwin.files.folders import home
from miniwin.search.brackets import Rule, rule_of
from miniwin.search.candidate import Candidate
from miniwin.search.journal import JOURNAL, Journal, Known, from_optuna
from miniwin.search.outcome import Outcome
from miniwin.search.samplers import make_pruner
from miniwin.search.space import Assignment, Space
from miniwin.search.storage_url import sqlite_path
from miniwin.search.study_json import read_about, write_about
from miniwin.specs import UserError, load_model_spec, load_search_spec, load_train_spec, user_path

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

BASELINE = "baseline"
EXHAUSTED = "miniwin_exhausted"  # attribute of the Optuna study: every assignment has been tried


class Study:
    """A study folder, opened."""

    def __init__(
        self, folder: Path, *, reading: bool = False, password: str | None = None, named: bool = False
    ) -> None:
        """reading: neither the folder nor the storage is written to. password: of the storage, if neither the study
        nor the environment has it. named: the user has just named the storage."""
        self.folder, self.reading, self.password, self.named = Path(folder), reading, password, named
        self.about = read_about(self.folder)
        self._version = self._spec_version()
        self.spec = load_search_spec(self.folder / "search.yaml")
        self.base = load_model_spec(self.folder / "model.yaml")
        self.train = load_train_spec(self.folder / "train.yaml")
        baseline = self.folder / "baseline.yaml"
        self.baseline = load_model_spec(baseline) if self.spec.baseline is not None else None
        self.lock = FileLock(self.folder / ".study.lock")
        # Of trials that have ended, which never change again: records (records.py), and history (history.py).
        self.ended: dict[int, Any] = {}
        self.tried: dict[int, Any] = {}

    def read_again(self) -> None:
        """Take up what has changed since the study was opened: its budget or its variables may have grown."""
        if self._version == (version := self._spec_version()):
            return
        self.about = read_about(self.folder)
        self.spec, self._version = load_search_spec(self.folder / "search.yaml"), version
        self.__dict__.pop("space", None)  # cached_property

    def _spec_version(self) -> tuple[int, int, int]:
        """Another one for each time that the search spec was written."""
        try:
            about = (self.folder / "search.yaml").stat()
        except OSError:
            return 0, 0, 0  # to read the spec then says what is wrong
        return about.st_ino, about.st_mtime_ns, about.st_size

    def write_about(self) -> None:
        write_about(self.folder, self.about)

    @cached_property
    def place(self) -> str | None:
        """The URL of the storage, with the whole path of its file; None for a journal in the study folder."""
        url: str | None = self.about["storage"]
        if url is None or sqlite_path(url) is None:
            return url
        from miniwin.search.storage import find_sqlite

        return find_sqlite(url, self.folder, self.spec.name, self.about["id"])

    def known(self) -> Known:
        """What Optuna knows of the trials. Nothing is written."""
        if self.about["storage"] is not None:
            return from_optuna(self.optuna)
        return self._check_journal() or Known()

    def _check_journal(self) -> Known | None:
        """What the journal says, or None if nothing has been tried yet.

        A journal that is damaged or lost is a UserError: a new journal in its place would try everything again.
        """
        known = self.journal.read()
        if known is None and _has_files(self.folder / "trials"):
            raise UserError(
                f"{self.folder / JOURNAL} is gone or has no trials in it, though {self.folder / 'trials'} has some: "
                "put the journal back from a copy, or choose another --out to search anew"
            )
        return known

    def is_unmade(self) -> bool:
        """Whether the study was cut off while it was made. There are no trials yet."""
        if self.about["storage"] is None:
            return self._check_journal() is None
        return not self.about.get("ready", True)

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.folder / JOURNAL, self.spec.name)

    @cached_property
    def storage(self) -> Any:
        from miniwin.search.storage import join_storage, open_journal

        if self.place is None:
            return open_journal(self.folder / JOURNAL)
        name, id, named = self.spec.name, self.about["id"], self.named
        return join_storage(self.place, self.folder, name, id, self.password, named=named, reading=self.reading)

    @cached_property
    def optuna(self) -> OptunaStudy:
        import optuna

        pruner = make_pruner(self.spec)
        if self.is_unmade():
            if not self.reading:
                raise UserError(f"{self.folder} has not begun: miniwin search run goes on with it")
            directions = [objective.direction for objective in self.spec.parsed_objectives]
            return optuna.create_study(study_name=self.spec.name, directions=directions, pruner=pruner)
        return optuna.load_study(study_name=self.spec.name, storage=self.storage, pruner=pruner)

    @cached_property
    def space(self) -> Space:
        return Space(self.spec, self.base, self.train, first_choices=self.about.get("choices"))

    @cached_property
    def rungs(self) -> list[int]:
        """Where a trial is measured before its end, in tokens."""
        return self.spec.rung_tokens(self.space.train.tokens)

    @cached_property
    def rule(self) -> Rule | None:
        """How trials of a halving go on; None with another pruner."""
        return rule_of(self.spec, self.space.train.tokens)

    @property
    def train_base(self) -> Path:
        return Path(self.about["train_base"])

    def lease_path(self, number: int | None) -> Path:
        return self.folder / "leases" / f"{BASELINE if number is None else number}.json"

    def trial_folder(self, hash: str) -> Path:
        return self.folder / "trials" / hash[:12]

    def baseline_candidate(self) -> Candidate:
        """The baseline, trained as every trial is, and resized if `match` asks for it."""
        assert self.baseline is not None
        return Candidate(self.space.matched(self.baseline), self.space.train)

    def new_baseline(self) -> Outcome:
        """The outcome of a baseline that nobody has worked on yet."""
        candidate = self.baseline_candidate()
        outcome = Outcome.begin(None, Assignment({}, candidate), candidate)
        outcome.attempts = 0
        return outcome


def find_study(ref: str | Path) -> Path:
    """The folder of a study, from its path or its name."""
    for folder in (user_path(ref), home() / "searches" / str(ref)):
        if (folder / "study.json").is_file():
            return folder
    place = (home() / "searches").absolute()
    there = sorted(path.parent.name for path in place.glob("*/study.json"))
    known = f"studies in {place}: {some(there, 20)}" if there else f"there are none in {place}"
    which = "a study's name (the `name` in its search spec)" if user_path(ref).is_file() else "a study's name"
    raise UserError(f"there is no study {str(ref)!r}: expected {which} or folder; {known}")


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
