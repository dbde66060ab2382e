"""A study on disk: what was asked, and who may work on what.

    study.json        format, id, storage, tracking; ready: false until the storage has the study
    search.yaml       what was asked, with the specs it names:
    model.yaml train.yaml baseline.yaml
    journal.log       Optuna's study, unless it is at a storage URL
    trials/<hash>/    one trained architecture: trial.json, run/ (a run folder); the hash is of what decides the result
    baseline/         the same for the baseline
    leases/           who works on which trial
    logs/             what the workers printed

Who works on what is in claims.py.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.passwords import has_secret, masked
from miniwin.files.folders import home
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import said_if_unwritable, write_json, write_text
from miniwin.machine.devices import find_device
from miniwin.machine.devices import settled as settled_dtype
from miniwin.search.candidate import Candidate
from miniwin.search.journal import JOURNAL, Journal, Known, from_optuna
from miniwin.search.outcome import Outcome
from miniwin.search.places import find_spec
from miniwin.search.samplers import make_pruner
from miniwin.search.space import Assignment, Space
from miniwin.search.storage_url import settled, sqlite_path, without_password
from miniwin.specs import (
    ModelSpec,
    SearchSpec,
    TrainSpec,
    UserError,
    dump_yaml,
    load_model_spec,
    load_search_spec,
    load_train_spec,
    user_path,
)
from miniwin.training.resume import differences

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

FORMAT = 1
BASELINE = "baseline"
SPECS = ("search.yaml", "model.yaml", "train.yaml", "baseline.yaml")
OWNER_TRIES, OWNER_SECONDS = 40, 0.05  # for another process to say that a new study is its own
KINDS: dict[str, Any] = {  # of what is in study.json
    "id": str,
    "storage": str | None,
    "train_base": str,
    "tracking": dict | None,
}
EXHAUSTED = "miniwin_exhausted"  # attribute of the Optuna study: every assignment has been tried


class Study:
    """A study folder, opened."""

    def __init__(
        self, folder: Path, *, reading: bool = False, password: str | None = None, named: bool = False
    ) -> None:
        """reading: nothing is written, nor is the storage. password: of the storage, where the study does not keep it
        and the environment does not say it. named: the user has just said the storage."""
        self.folder, self.reading, self.password, self.named = Path(folder), reading, password, named
        self.about = _read_about(self.folder)
        self.spec = load_search_spec(self.folder / "search.yaml")
        self.base = load_model_spec(self.folder / "model.yaml")
        self.train = load_train_spec(self.folder / "train.yaml")
        baseline = self.folder / "baseline.yaml"
        self.baseline = load_model_spec(baseline) if self.spec.baseline is not None else None
        self.lock = FileLock(self.folder / ".study.lock")
        self.settled: dict[int, Any] = {}  # records of trials that have ended, which never change again

    @classmethod
    def create(
        cls,
        spec: SearchSpec,
        base_folder: Path,
        *,
        out: Path | None = None,
        storage: str | None = None,
        check: Callable[[Space, Path], object] | None = None,
    ) -> Study:
        """Make the study folder, or open it where it exists and is of the same search. `base_folder` is what the paths
        in the spec are relative to. check: what else has to hold before a folder is made, of the space and of the
        folder that paths of its train spec are relative to."""
        folder = user_path(out) if out is not None else home() / "searches" / spec.name
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; expected a folder for the study: choose another --out")
        parts = _Parts.load(spec, base_folder)
        space = Space(spec, parts.base, parts.train)  # mistakes are found before anything is written
        if (
            folder.is_dir()
            and not (folder / "study.json").exists()
            and any((folder / name).exists() for name in ("run.json", "entry.json", "trials"))
        ):
            raise UserError(
                f"{folder} is not a study folder, and a search would write over what is there: choose another --out"
            )
        from miniwin.search.storage import make_storage, owner
        from miniwin.search.storage_named import remember_named

        url, password = (None, None) if storage is None else settled(storage)
        own = folder.resolve() == user_path(base_folder).resolve() and not (folder / "study.json").exists()
        if own and any((folder / name).exists() for name in SPECS):
            raise UserError(f"{folder} holds the search itself, and a study would write over it: choose another --out")
        if check is not None and not _is_begun(folder):
            check(space, parts.train_base)
        made = None
        if url is not None and not _is_begun(folder):  # nothing is written here where that fails
            made = make_storage(url, password)
            if owner(made, spec.name) not in (None, "", _pending_id(folder)):
                raise _taken(url, spec.name)
        with said_if_unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with said_if_unwritable(folder), FileLock(folder / ".study.lock"):
            if _is_begun(folder):
                study = cls(folder, password=password, named=url is not None)
                unmade = study._is_unmade()
                study._continue_with(parts, url, storage)
                if unmade:
                    study._create_in_storage()
            else:
                study = cls._begin(folder, parts, url, password, made)
            for name in ("trials", "leases", "logs"):
                (folder / name).mkdir(exist_ok=True)
            study._name_objectives()
        if url is not None:
            remember_named(url)
        return study

    @classmethod
    def _begin(cls, folder: Path, parts: _Parts, url: str | None, password: str | None, made: Any) -> Study:
        """A new study folder. Until the storage has the study, the folder is not bound to it."""
        from miniwin.search.storage import open_journal

        # One precision for all trials, wherever they run.
        replace(parts, train=settled_dtype(parts.train, find_device(None))).write(folder)
        about = {
            "format": FORMAT,
            "id": _pending_id(folder) or uuid.uuid4().hex,
            "name": parts.spec.name,
            "storage": url,
            "train_base": str(parts.train_base),
            "tracking": None,
            "ready": False,
        }
        write_json(folder / "study.json", about)
        try:
            study = cls(folder, password=password)
            study._storage = made if made is not None else open_journal(folder / JOURNAL)
            study._create_in_storage()
        except BaseException:
            (folder / "study.json").unlink(missing_ok=True)
            raise
        del study.about["ready"]
        study.write_about()
        return study

    # -- opening

    def _continue_with(self, parts: _Parts, url: str | None, storage: str | None) -> None:
        """Accept the same search with a larger budget; refuse any other change. url: of the `storage` asked for."""
        kept = self._place
        if url is not None and (kept is None or without_password(url) != without_password(kept)):
            raise UserError(
                f"{self.folder} keeps its study in {masked(kept) if kept else 'a journal file'}, not in "
                f"{masked(storage or url)}: leave --storage out, or choose another --out"
            )
        old = _Parts(self.spec, self.base, self.train, self.baseline, Path(self.about["train_base"]))
        parts = replace(parts, train=settled_dtype(parts.train, find_device(None), self.train.dtype))
        found = differences(old.comparable(), parts.comparable())
        before, now = self.spec.budget.trials, parts.spec.budget.trials
        if now < before:
            found.append(f"search.budget.trials: {before} there, {now} now")
        if found:
            raise UserError(
                f"{self.folder} holds a study of another search ({'; '.join(found[:5])}"
                f"{'; ...' if len(found) > 5 else ''}): only budget.trials may grow; choose another --out or name"
            )
        # The study's own copy of a train spec is not where its relative paths start from.
        moved = parts.train_base not in (old.train_base, self.folder.resolve())
        _ = self._storage  # nothing is written where it cannot be joined
        if now != before or moved or kept != self.about["storage"]:
            parts.write(self.folder)
            self.about["train_base"] = str(parts.train_base if moved else old.train_base)
            self.about["storage"] = kept
            self.write_about()
            self.spec = load_search_spec(self.folder / "search.yaml")

    def _create_in_storage(self) -> None:
        import optuna

        from miniwin.search.storage import OWNER, owner

        name, id = self.spec.name, self.about["id"]
        directions = [objective.direction for objective in self.spec.parsed_objectives]
        try:
            study = optuna.create_study(storage=self._storage, study_name=name, directions=directions)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=self._storage, study_name=name)
            for _ in range(OWNER_TRIES):  # who made it says so at once, unless it was killed in that moment
                if known := owner(self._storage, name):
                    break
                time.sleep(OWNER_SECONDS)
            if (known or id) != id or study.get_trials(deepcopy=False):
                raise _taken(self.about["storage"], name) from None
        study.set_user_attr(OWNER, id)

    def _name_objectives(self) -> None:
        """What Optuna's dashboard calls the objectives."""
        import optuna

        names = [objective.name for objective in self.spec.parsed_objectives]
        if self.optuna.metric_names != names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.optuna.set_metric_names(names)

    def write_about(self) -> None:
        write_json(self.folder / "study.json", self.about)
        if has_secret(self.about["storage"] or ""):  # of a study that was made when passwords were kept
            (self.folder / "study.json").chmod(0o600)

    @cached_property
    def _place(self) -> str | None:
        """The URL of the storage, with the whole path of a file."""
        url: str | None = self.about["storage"]
        if url is None or sqlite_path(url) is None:
            return url
        from miniwin.search.storage import find_sqlite

        return find_sqlite(url, self.folder, self.spec.name, self.about["id"])

    def known(self) -> Known:
        """What Optuna knows of the trials. Reads only."""
        if self.about["storage"] is not None:
            return from_optuna(self.optuna)
        return self._check_journal() or Known()

    def _check_journal(self) -> Known | None:
        """What the journal says, or None where nothing has been tried yet. A journal that is damaged or has been lost
        is a UserError: with another one in its place what was tried would be tried again."""
        known = self.journal.read()
        if known is None and _has_files(self.folder / "trials"):
            raise UserError(
                f"{self.folder / JOURNAL} is gone or has no trials in it, though {self.folder / 'trials'} has; put it "
                "back from a copy, or choose another --out to search anew"
            )
        return known

    def _is_unmade(self) -> bool:
        """Whether the making of the study was cut off, so that there are no trials yet."""
        if self.about["storage"] is None:
            return self._check_journal() is None
        return not self.about.get("ready", True)

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.folder / JOURNAL, self.spec.name)

    @cached_property
    def _storage(self) -> Any:
        from miniwin.search.storage import join_storage, open_journal

        if self._place is None:
            return open_journal(self.folder / JOURNAL)
        name, id, named = self.spec.name, self.about["id"], self.named
        return join_storage(self._place, self.folder, name, id, self.password, named=named, reading=self.reading)

    @cached_property
    def optuna(self) -> OptunaStudy:
        import optuna

        pruner = make_pruner(self.spec)
        if self._is_unmade():
            if not self.reading:
                raise UserError(f"{self.folder} has not begun: miniwin search run goes on with it")
            directions = [objective.direction for objective in self.spec.parsed_objectives]
            return optuna.create_study(study_name=self.spec.name, directions=directions, pruner=pruner)
        return optuna.load_study(study_name=self.spec.name, storage=self._storage, pruner=pruner)

    @cached_property
    def space(self) -> Space:
        return Space(self.spec, self.base, self.train)

    @property
    def train_base(self) -> Path:
        return Path(self.about["train_base"])

    def lease_path(self, number: int | None) -> Path:
        return self.folder / "leases" / f"{BASELINE if number is None else number}.json"

    def trial_folder(self, hash: str) -> Path:
        return self.folder / "trials" / hash[:12]

    def new_baseline(self) -> Outcome:
        """The outcome of a baseline that nobody has worked on yet."""
        assert self.baseline is not None
        candidate = Candidate(self.baseline, self.space.train)
        outcome = Outcome.begin(None, Assignment({}, candidate), candidate)
        outcome.attempts = 0
        return outcome


@dataclass(frozen=True)
class _Parts:
    """A search spec and the specs it names."""

    spec: SearchSpec
    base: ModelSpec
    train: TrainSpec
    baseline: ModelSpec | None
    train_base: Path  # what relative paths in the train spec start from

    @classmethod
    def load(cls, spec: SearchSpec, folder: Path) -> _Parts:
        train = find_spec(spec.train, folder, "train", "train")
        return cls(
            spec,
            load_model_spec(find_spec(spec.base, folder, "model", "base")),
            load_train_spec(train),
            None if spec.baseline is None else load_model_spec(find_spec(spec.baseline, folder, "model", "baseline")),
            train.resolve().parent,
        )

    def comparable(self) -> dict[str, Any]:
        """What has to stay the same while a study goes on. The files may move; their contents may not change."""
        search = self.spec.model_dump(mode="json")
        for name in ("base", "train", "baseline", "workers"):
            search.pop(name)
        search["budget"] = {"tokens_per_trial": search["budget"]["tokens_per_trial"]}
        baseline = None if self.baseline is None else self.baseline.model_dump(mode="json")
        return {
            "search": search,
            "base": self.base.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "baseline": baseline,
        }

    def write(self, folder: Path) -> None:
        write_text(folder / "model.yaml", dump_yaml(self.base))
        write_text(folder / "train.yaml", dump_yaml(self.train))
        names = {"base": "model.yaml", "train": "train.yaml"}
        if self.baseline is not None:
            write_text(folder / "baseline.yaml", dump_yaml(self.baseline))
            names["baseline"] = "baseline.yaml"
        write_text(folder / "search.yaml", dump_yaml(self.spec.model_copy(update=names)))


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


def _is_begun(folder: Path) -> bool:
    """Whether there is a study in the folder, and its storage has it."""
    return (folder / "study.json").exists() and bool(_read_about(folder).get("ready", True))


def _pending_id(folder: Path) -> str | None:
    """The id of a study whose making was cut off."""
    return _read_about(folder)["id"] if (folder / "study.json").exists() else None


def _taken(url: str | None, name: str) -> UserError:
    return UserError(
        f"the storage {masked(url or 'in the study folder')} already has a study named {name!r}, of another study "
        "folder: give the search another name, or use that folder with --out"
    )


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = read_json(folder / "study.json", names=True)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not a study folder: it has no study.json; expected one that `miniwin search run` made"
        ) from None
    except JSONProblem as error:
        raise UserError(f"{folder / 'study.json'} is {error}; expected what `miniwin search` wrote") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise UserError(f"{folder / 'study.json'} has format {found!r}; this version of miniwin reads format {FORMAT}")
    for name, kind in KINDS.items():
        if name not in about or not isinstance(about[name], kind):
            raise UserError(
                f"{folder / 'study.json'}: {name} is not what `miniwin search` wrote; put it back from a copy"
            )
    return about
