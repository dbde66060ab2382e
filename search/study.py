"""A study folder, opened.

    study.json        the id of the study, and where its storage is (study_json.py)
    search.yaml       what was asked
    model.yaml train.yaml baseline.yaml    the specs that search.yaml names
    journal.log       Optuna's study, unless the storage is at a URL
    trials/<hash>/    a trained architecture: trial.json, run/ (a run folder); the hash is of what decides the result
    baseline/         the same of the baseline
    leases/           which process works on which trial
    logs/             what the workers printed

With a storage at a URL, specs, leases and outcomes are in the storage (stored.py), and run folders may be elsewhere
(places.py): then each machine has a study folder of its own. creation.py makes the first, joining.py the others;
claims.py hands out the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from miniwin.blocks.messages.listing import some
from miniwin.files.folders import home
from miniwin.search.at_once import set_trial_attributes
from miniwin.search.brackets import Rule, rule_of
from miniwin.search.candidate import Candidate
from miniwin.search.entries import LEASE, Entry, FileEntry, StoredEntry
from miniwin.search.first_weights import FirstWeights
from miniwin.search.joining import is_url, join_study, move_place
from miniwin.search.journal import JOURNAL, Journal, Known, Told, from_optuna
from miniwin.search.leases import Lease, lease_of, read_lease
from miniwin.search.locks import under
from miniwin.search.outcome import Outcome
from miniwin.search.places import Place, find_place, open_place
from miniwin.search.remote_place import RemotePlace
from miniwin.search.samplers import make_pruner
from miniwin.search.space import Assignment, Space
from miniwin.search.storage_url import given_password, sqlite_path
from miniwin.search.stored import FILES, files_in, shared, take_up
from miniwin.search.study_json import STORED, read_about, write_about
from miniwin.specs import UserError, load_model_spec, load_search_spec, load_train_spec, user_path

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial, Trial

T = TypeVar("T")
BASELINE = "baseline"
EXHAUSTED = "miniwin_exhausted"  # attribute of the Optuna study: every assignment has been tried
GROWN_AT = "miniwin_grown_at"  # likewise: how many trials there were when the variables grew


class Study:
    """A study folder, opened."""

    def __init__(
        self, folder: Path, *, reading: bool = False, password: str | None = None, named: bool = False
    ) -> None:
        """reading: neither the folder nor the storage is written to. password: of the storage, if neither the study
        nor the environment has it. named: the user has just named the storage."""
        self.folder, self.reading, self.named = Path(folder), reading, named
        self.load()
        self.password = password or given_password(self.about["storage"])
        self.base = load_model_spec(self.folder / "model.yaml")
        self.train = load_train_spec(self.folder / "train.yaml")
        baseline = self.folder / "baseline.yaml"
        self.baseline = load_model_spec(baseline) if self.spec.baseline is not None else None
        # Of trials that have ended, which never change again: records (records.py), and history (history.py).
        self.ended: dict[int, Any] = {}
        self.tried: dict[int, Any] = {}

    @property
    def stored(self) -> bool:
        """Whether what workers share is in the storage, and not in the folder."""
        return bool(self.about["format"] == STORED)

    def read_again(self, attributes: Mapping[str, Any] | None = None) -> None:
        """Take up what has changed since the study was opened: its budget or its variables may have grown.

        attributes: of the Optuna study, if they have just been read.
        """
        if self.stored:
            files = files_in(self.optuna.user_attrs if attributes is None else attributes, self.spec.name)
            if files["version"] == self.about.get("version"):
                return
            take_up(self.folder, self.about, files)
        elif self._version == self._spec_version():
            return
        self.load()

    def load(self) -> None:
        """Read again what changes while a study goes on."""
        self._version = self._spec_version()
        self.about = read_about(self.folder)
        self.spec = load_search_spec(self.folder / "search.yaml")
        self.__dict__.pop("space", None)  # cached_property
        if (weights := self.__dict__.get("weights")) is not None and weights.record != self.about.get("weights"):
            del self.__dict__["weights"]

    def _spec_version(self) -> tuple[int, int, int]:
        """Another one for each time that the search spec was written."""
        try:
            about = (self.folder / "search.yaml").stat()
        except OSError:
            return 0, 0, 0  # to read the spec then says what is wrong
        return about.st_ino, about.st_mtime_ns, about.st_size

    def write_about(self) -> None:
        if self.stored and not self.is_unmade():
            self.locked(self.publish)
        else:
            write_about(self.folder, self.about)

    def publish(self, texts: Mapping[str, str] | None = None) -> None:
        """Put the specs, and what all machines share of study.json, into the storage; then here.

        texts: by the names of the files; None: as they are in the storage. The caller holds the lock.
        """
        if texts is None:
            texts = files_in(self.optuna.user_attrs, self.spec.name)["texts"]
        files = shared(self.about, texts)
        self.optuna.set_user_attr(FILES, files)
        take_up(self.folder, self.about, files)

    @cached_property
    def lock(self) -> AbstractContextManager[Any]:
        """What every change to the study is made under; by `locked`, if the change writes more than once."""
        if not self.stored:
            return FileLock(self.folder / ".study.lock")
        from miniwin.search.storage import lock_in

        assert self.url is not None
        return lock_in(self.storage, self.url, self.spec.name)

    def locked(self, work: Callable[[], T]) -> T:
        """Do work under the lock: once more, if the lock is lost on the way."""
        return under(self.lock, work)

    @cached_property
    def url(self) -> str | None:
        """The URL of the storage, with the whole path of its file; None for a journal in the study folder."""
        url: str | None = self.about["storage"]
        if url is None or sqlite_path(url) is None:
            return url
        from miniwin.search.storage import find_sqlite

        return find_sqlite(url, self.folder, self.spec.name, self.about["id"])

    def known(self) -> Known:
        """What Optuna knows of the trials. Nothing is written but copies of the specs."""
        if self.about["storage"] is not None:
            known = from_optuna(self.optuna)
            if self.stored and not self.is_unmade():
                self.read_again(known.user_attrs)
            return known
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

        if self.url is None:
            return open_journal(self.folder / JOURNAL)
        name, id, named = self.spec.name, self.about["id"], self.named
        return join_storage(self.url, self.folder, name, id, self.password, named=named, reading=self.reading)

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
        more: dict[str, Any] = {"first_choices": self.about.get("choices"), "weights": self.weights}
        return Space(self.spec, self.base, self.train, fitting=not self.reading, **more)

    @cached_property
    def weights(self) -> FirstWeights | None:
        """What every trial begins with; None for random weights."""
        if self.spec.weights is None:
            return None
        if "weights" not in self.about:
            raise UserError(f"{self.folder / 'study.json'} does not say which weights it began with; put it back")
        return FirstWeights(self.about["weights"], self.spec.map)

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

    @cached_property
    def place(self) -> Place | RemotePlace:
        """Where run folders are."""
        return open_place(self.about["place"], self.folder) if self.stored else Place(self.folder)

    def check_place(self) -> None:
        """Raise UserError if run folders cannot be read and written from here."""
        if self.stored:
            place = self.about["place"] if self.place.elsewhere else str(self.place.folder)
            find_place(None, place, self.spec.name, self.about["id"])
            self.place.check_writable()

    def trial_folder(self, hash: str) -> Path:
        return self.place.folder / "trials" / hash[:12]

    def training_folder(self, kind: str, name: str) -> Path:
        """The folder of a training when the trials are over. kind: such as confirm."""
        return self.place.folder / kind / name

    @property
    def baseline_folder(self) -> Path:
        return self.place.folder / BASELINE

    def trial_entry(
        self, trial: Trial | FrozenTrial, hash: str | None = None, seen: Mapping[str, Any] | None = None
    ) -> Entry:
        """What is written down about a trial. hash: of its candidate, if there is one yet. seen: its attributes, if
        they have just been read."""
        if not self.stored:
            return FileEntry(self.lease_path(trial.number), self.trial_folder(hash or "none"))
        number = trial._trial_id
        return StoredEntry(
            lambda: self.storage.get_trial(number).user_attrs,
            lambda attributes: set_trial_attributes(self.storage, number, attributes),
            seen=seen,
        )

    def lease_seen(self, trial: FrozenTrial | Told) -> Lease | None:
        """The lease of a trial that has just been read."""
        return lease_of(trial.user_attrs.get(LEASE)) if self.stored else read_lease(self.lease_path(trial.number))

    def baseline_entry(self, seen: Mapping[str, Any] | None = None) -> Entry:
        """What is written down about the baseline. seen: attributes of the Optuna study, if they have just been
        read."""
        return self._entry(BASELINE, self.baseline_folder, seen)

    def training_entry(self, kind: str, name: str, seen: Mapping[str, Any] | None = None) -> Entry:
        return self._entry(f"{kind}-{name}", self.training_folder(kind, name), seen)

    def _entry(self, of: str, folder: Path, seen: Mapping[str, Any] | None) -> Entry:
        if not self.stored:
            return FileEntry(self.folder / "leases" / f"{of}.json", folder)

        def write(attributes: Mapping[str, Any]) -> None:
            for name, value in attributes.items():
                self.optuna.set_user_attr(name, value)

        return StoredEntry(lambda: self.optuna.user_attrs, write, of, seen)

    def lease_path(self, number: int | None) -> Path:
        """The file of a lease, in a study that has such files."""
        return self.folder / "leases" / f"{BASELINE if number is None else number}.json"

    def baseline_candidate(self) -> Candidate:
        """The baseline, trained as every trial is, and resized if `match` asks for it."""
        assert self.baseline is not None
        return self.space.candidate(self.space.matched(self.baseline))

    def new_baseline(self) -> Outcome:
        """The outcome of a baseline that nobody has worked on yet."""
        candidate = self.baseline_candidate()
        outcome = Outcome.begin(None, Assignment({}, candidate), candidate)
        outcome.attempts = 0
        return outcome


def find_study(ref: str | Path, place: str | None = None) -> Path:
    """The folder of a study, from its path, its name, or the URL of its storage (joining.py).

    place: where this machine sees the run folders, if that is not where the study's maker sees them.
    """
    if is_url(ref):
        return join_study(str(ref), place)
    for folder in (user_path(ref), home() / "searches" / str(ref)):
        if (folder / "study.json").is_file():
            if place is not None:
                move_place(folder, place)
            return folder
    all_of_them = (home() / "searches").absolute()
    there = sorted(path.parent.name for path in all_of_them.glob("*/study.json"))
    known = f"studies in {all_of_them}: {some(there, 20)}" if there else f"there are none in {all_of_them}"
    which = "a study's name (the `name` in its search spec)" if user_path(ref).is_file() else "a study's name"
    raise UserError(f"there is no study {str(ref)!r}: expected {which} or folder, or its storage's URL; {known}")


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
