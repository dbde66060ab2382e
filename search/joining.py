"""Joining a study from its storage's URL alone: this machine gets a study folder of its own.

    postgresql://me@host/db                the only study there
    postgresql://me@host/db#my-search      one of several

The folder is in the cache. It has copies of the specs, and what this machine's workers print. All else is in the
storage and in the place for run folders, so the folder can be deleted at any time.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.passwords import masked
from miniwin.files.folders import cache_folder
from miniwin.files.writing import said_if_unwritable
from miniwin.search.places import find_place
from miniwin.search.storage_trust import remember_named
from miniwin.search.storage_url import give_password, split_password
from miniwin.search.stored import PLACE, files_in, take_up
from miniwin.search.study_json import STORED, read_about, write_about
from miniwin.specs import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def is_url(ref: str | Path) -> bool:
    """Whether a study is named by the URL of its storage."""
    return isinstance(ref, str) and "://" in ref


def join_study(ref: str, place: str | None = None) -> Path:
    """The folder that this machine has for a study, made or brought up to date.

    ref: the URL of the storage, and the study's name behind a #. place: where run folders are, if this machine does not
    see them where the study's maker does; it is remembered here.

    Raises:
        UserError: the storage cannot be opened, has no such study, or several; or `place` is not there.
    """
    from miniwin.search.storage import OWNER, open_to_join

    url, _, name = ref.partition("#")
    kept, password = split_password(url, said="")
    give_password(kept, password)
    remember_named(kept)
    storage = open_to_join(kept, password)
    name, attributes = _choose(storage, masked(kept), name)
    id, files = str(attributes[OWNER]), files_in(attributes, name)
    folder = cache_folder() / "studies" / f"{name}-{id[:8]}"
    known = str(attributes.get(PLACE, ""))
    with suppress(UserError):
        known = str(read_about(folder)["place"])
    about: dict[str, Any] = {"format": STORED, "id": id, "name": name, "storage": kept, "tracking": None}
    about["place"] = known if place is None else find_place(place, known, name, id)
    with said_if_unwritable(folder):
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    take_up(folder, about, files)
    return folder


def move_place(folder: Path, place: str) -> None:
    """Remember in a study folder where this machine sees the run folders. UserError if they are not there."""
    about = read_about(folder)
    if about["format"] != STORED:
        raise UserError(f"--place {place}: {folder} has its run folders in itself; leave --place out")
    about["place"] = find_place(place, about["place"], about["name"], about["id"])
    write_about(folder, about)


def _choose(storage: BaseStorage, url: str, name: str) -> tuple[str, dict[str, Any]]:
    """The name of the study that is meant, and its attributes."""
    from miniwin.search.storage import OWNER

    if name:
        try:
            attributes = storage.get_study_user_attrs(storage.get_study_id_from_name(name))
        except KeyError:
            attributes = {}
        if attributes.get(OWNER):
            return name, attributes
    there = {one.study_name: dict(one.user_attrs) for one in storage.get_all_studies() if OWNER in one.user_attrs}
    if len(there) == 1 and not name:
        return next(iter(there.items()))
    known = f"its studies are {some(sorted(there), 20)}" if there else "it has none that miniwin search made"
    if name:
        raise UserError(f"{url} has no study {name!r}: {known}")
    if there:
        raise UserError(f"{url}: which study? Write its name behind a #, such as {url}#{sorted(there)[0]}; {known}")
    raise UserError(f"{url} has no study to join: {known}; miniwin search run --storage makes one")
