"""Making the folder of a study, and going on with a study that is of the same search."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from miniwin.blocks.messages.passwords import masked
from miniwin.files.folders import home
from miniwin.files.writing import said_if_unwritable
from miniwin.machine.devices import find_device, settled
from miniwin.search.growth import first_choices, grown, with_variables
from miniwin.search.joining import move_place
from miniwin.search.journal import JOURNAL
from miniwin.search.named_specs import NamedSpecs
from miniwin.search.places import make_place
from miniwin.search.space import Space, check_rungs
from miniwin.search.storage_trust import remember_named
from miniwin.search.storage_url import split_password, without_password
from miniwin.search.stored import PLACE
from miniwin.search.study import EXHAUSTED, GROWN_AT, Study
from miniwin.search.study_json import FORMAT, STORED, is_begun, is_stored, pending_id, read_about, write_about
from miniwin.specs import SearchSpec, UserError, load_search_spec, user_path
from miniwin.specs.confirmation import ConfirmSpec
from miniwin.training.same_run import differences

SPECS = ("search.yaml", "model.yaml", "train.yaml", "baseline.yaml")
OWNER_TRIES, OWNER_SECONDS = 40, 0.05  # how long to wait for another process that is making the same study


def create_study(
    spec: SearchSpec,
    base_folder: Path,
    *,
    out: Path | None = None,
    storage: str | None = None,
    place: str | None = None,
    check: Callable[[Space, Path], object] | None = None,
) -> Study:
    """Make a study folder; or open the folder, if it has a study of the same search.

    base_folder: where relative paths in the spec start. out: the study folder; None: searches/<name> in the home
    folder. storage: an Optuna storage URL; None: a journal in the study folder. place: where run folders go, if there
    is a storage URL; None: into the study folder. check: raises what else is wrong before a folder is made; it is given
    the space, and the folder where relative paths in the train spec start.
    """
    folder = user_path(out) if out is not None else home() / "searches" / spec.name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder for the study: choose another --out")
    specs = NamedSpecs.load(spec, base_folder)
    space = Space(spec, specs.base, specs.train, weights=specs.weights)  # mistakes are found before anything is written
    space.check_baseline(specs.baseline)
    if not is_begun(folder):
        check_rungs(space)
    if (
        folder.is_dir()
        and not (folder / "study.json").exists()
        and any((folder / name).exists() for name in ("run.json", "entry.json", "trials"))
    ):
        raise UserError(
            f"{folder} is not a study folder, and a search would write over what is there: choose another --out"
        )
    from miniwin.search.storage import make_storage, owner

    url, password = (None, None) if storage is None else split_password(storage)
    own = folder.resolve() == user_path(base_folder).resolve() and not (folder / "study.json").exists()
    if own and any((folder / name).exists() for name in SPECS):
        raise UserError(f"{folder} holds the search itself, and a study would write over it: choose another --out")
    if check is not None and (not is_begun(folder) or spec.confirm not in (None, _confirmed_by(folder))):
        own = is_begun(folder) and specs.train_base == folder.resolve()
        check(space, Path(read_about(folder)["train_base"]) if own else specs.train_base)
    if place is not None and url is None and not is_stored(folder):
        raise UserError(
            f"--place {place}: with a journal file, run folders are in the study folder, which all workers see: choose "
            "that with --out; or keep the study in a database with --storage"
        )
    made = None
    if url is not None and not is_begun(folder):  # nothing is written here where that fails
        made = make_storage(url, password)
        if owner(made, spec.name) not in (None, "", pending_id(folder)):
            raise _taken(url, spec.name)
    with said_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with said_if_unwritable(folder), FileLock(folder / ".study.lock"):
        if is_begun(folder):
            if place is not None:
                move_place(folder, place)
            study = Study(folder, password=password, named=url is not None)
            unmade = study.is_unmade()
            _check_same_storage(study, url, storage)  # before the storage is opened, and a password is sent there
            if study.stored:
                study.locked(lambda: _continue_with(study, specs))
            else:
                _continue_with(study, specs)
            if unmade:
                _create_in_storage(study)
        else:
            study = _begin(folder, specs, url, password, place, made)
        for name in ("trials", "leases", "logs"):
            (folder / name).mkdir(exist_ok=True)
        _name_objectives(study)
    if url is not None:
        remember_named(url)
    return study


def _confirmed_by(folder: Path) -> ConfirmSpec | None:
    """The confirmation that a study has asked for."""
    confirm: ConfirmSpec | None = load_search_spec(folder / "search.yaml").confirm
    return confirm


def _begin(
    folder: Path, specs: NamedSpecs, url: str | None, password: str | None, place: str | None, made: Any
) -> Study:
    """Make a study. If the storage does not get it, study.json is deleted again, and the folder is free."""
    from miniwin.search.storage import open_journal

    # One precision for all trials, wherever they run.
    specs = replace(specs, train=settled(specs.train, find_device(None)))
    specs.write(folder)
    name, id = specs.spec.name, pending_id(folder) or uuid.uuid4().hex
    about = {
        "format": FORMAT,
        "id": id,
        "name": name,
        "storage": url,
        "train_base": str(specs.train_base),
        "tracking": None,
        "ready": False,
        **({} if specs.weights is None else {"weights": specs.weights.record}),
    }
    if url is not None:
        about |= {"format": STORED, "place": make_place(place, name, id, folder)}
    write_about(folder, about)
    try:
        study = Study(folder, password=password)
        study.storage = made if made is not None else open_journal(folder / JOURNAL)
        _create_in_storage(study)
    except BaseException:
        (folder / "study.json").unlink(missing_ok=True)
        raise
    del study.about["ready"]
    if study.stored:
        study.optuna.set_user_attr(PLACE, study.about["place"])
        study.locked(lambda: study.publish(specs.texts()))
    else:
        study.write_about()
    return study


def _check_same_storage(study: Study, url: str | None, storage: str | None) -> None:
    """UserError if a study that goes on is kept elsewhere. storage: as the user wrote it; url: what is kept of it."""
    kept = study.url
    if url is not None and (kept is None or without_password(url) != without_password(kept)):
        raise UserError(
            f"{study.folder} keeps its study in {masked(kept) if kept else 'a journal file'}, not in "
            f"{masked(storage or url)}: leave --storage out, or choose another --out"
        )


def _continue_with(study: Study, specs: NamedSpecs) -> None:
    """Accept the same search, also with a larger budget, wider variables or another confirmation; refuse any other
    change."""
    kept = study.url
    if study.stored:
        study.read_again()
    own = study.spec, study.base, study.train, study.baseline
    old = NamedSpecs(*own, Path(study.about["train_base"]), study.weights)
    specs = replace(specs, train=settled(specs.train, find_device(None), study.train.dtype))
    if specs.spec.confirm is None:  # `miniwin search confirm` may have asked for one
        specs = replace(specs, spec=specs.spec.model_copy(update={"confirm": study.spec.confirm}))
    confirms = specs.spec.confirm != study.spec.confirm
    wider = grown(study.spec, specs.spec)
    found = differences(old.comparable(), replace(specs, spec=with_variables(specs.spec, wider)).comparable())
    before, now = study.spec.budget.trials, specs.spec.budget.trials
    if now < before:
        found.append(f"search.budget.trials: {before} there, {now} now")
    if found:
        raise UserError(
            f"{study.folder} holds a study of another search ({'; '.join(found[:5])}"
            f"{'; ...' if len(found) > 5 else ''}): only budget.trials, and the choices (at their end) and "
            "ranges of variables, may grow, and confirm may change; choose another --out or name"
        )
    # Relative paths do not start at the study's own copy of a train spec.
    moved = specs.train_base not in (old.train_base, study.folder.resolve())
    _ = study.storage  # raises where the storage cannot be joined, before anything is written
    if (wider or now > before) and not study.is_unmade():
        study.optuna.set_user_attr(EXHAUSTED, False)  # or trials that wait could not go on
    if wider and not study.is_unmade():
        study.optuna.set_user_attr(GROWN_AT, len(study.optuna.get_trials(deepcopy=False)))
        study.about["choices"] = first_choices(study.about.get("choices"), wider)
        if not study.stored:  # before the spec: a choice that has grown needs another name in Optuna (coding.py)
            study.write_about()
    weights = None if specs.weights is None else specs.weights.record
    changed = now != before or wider or confirms or moved or weights != study.about.get("weights")
    if changed or kept != study.about["storage"]:
        study.about |= {} if weights is None else {"weights": weights}
        study.about["train_base"] = str(specs.train_base if moved else old.train_base)
        study.about["storage"] = kept
        if not study.stored:
            specs.write(study.folder)
            study.write_about()
            study.read_again()
        elif changed:
            study.publish(specs.texts())
            study.load()
        else:
            write_about(study.folder, study.about)


def _create_in_storage(study: Study) -> None:
    import optuna

    from miniwin.search.storage import OWNER, owner

    name, id = study.spec.name, study.about["id"]
    directions = [objective.direction for objective in study.spec.parsed_objectives]
    try:
        made = optuna.create_study(storage=study.storage, study_name=name, directions=directions)
    except optuna.exceptions.DuplicatedStudyError:
        made = optuna.load_study(storage=study.storage, study_name=name)
        for _ in range(OWNER_TRIES):  # its maker sets OWNER at once, unless the maker was killed in that moment
            if known := owner(study.storage, name):
                break
            time.sleep(OWNER_SECONDS)
        if (known or id) != id or made.get_trials(deepcopy=False):
            raise _taken(study.about["storage"], name) from None
    made.set_user_attr(OWNER, id)


def _name_objectives(study: Study) -> None:
    """Give Optuna's dashboard the names of the objectives."""
    import optuna

    names = [objective.name for objective in study.spec.parsed_objectives]
    if study.optuna.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.optuna.set_metric_names(names)


def _taken(url: str | None, name: str) -> UserError:
    return UserError(
        f"the storage {masked(url or 'in the study folder')} already has a study named {name!r}, which belongs to "
        "another study folder: give the search another name, or use that folder with --out"
    )
