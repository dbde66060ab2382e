"""Where Optuna keeps a study: a journal file in the study folder by default, or any Optuna storage URL.

Optuna's own locks for journal files outlive a killed process by half a minute. And a line that a killed process has
half written makes the file unreadable once another line follows. So the journal is written under a lock that the
operating system takes back when its holder dies, and a torn last line is cut off before anything is appended.
"""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from miniwin.blocks.messages.passwords import MASK, masked, without_secrets_of
from miniwin.files.writing import said_if_unwritable
from miniwin.search.database import StorageLost, is_away, open_database, patient, read_database, what_is_wrong
from miniwin.search.few_statements import FewStatements
from miniwin.search.grpc_storage import open_proxy
from miniwin.search.server_lock import ServerLock
from miniwin.search.storage_trust import check_named
from miniwin.search.storage_url import EXAMPLES, PASSWORD, is_proxy, sqlite_path, with_password, with_path
from miniwin.search.ticket_lock import TicketLock
from miniwin.specs import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

OWNER = "miniwin_study"  # attribute of the Optuna study: its id, which its study folders have too

# Our own table shows what happens. After a resume, values are reported again, and Optuna ignores them: as expected.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", message="The reported value is ignored")
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class KillSafeLock(JournalFileOpenLock):
    """A lock that dies with its holder. It also mends the journal that its last holder left half written."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        self._lock.release()


def cut_torn_line(path: Path) -> None:
    """Remove a last line that has no line end."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        end = size
        while end > 0:  # look for the last line end from the back, a block at a time
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)


class NamedJournal(JournalFileBackend):
    """A journal whose file is named in the error if it cannot be written."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal), lock_obj=KillSafeLock(journal))
        self._journal = journal

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with said_if_unwritable(self._journal):
            super().append_logs(logs)


def open_journal(journal: Path) -> BaseStorage:
    return optuna.storages.JournalStorage(NamedJournal(journal))


class GuardedJournal(optuna.storages.JournalStorage):
    """A journal in a server. A thread that has lost the lock of its study reads and writes no more (locks.py)."""


for _name, _method in vars(optuna.storages.JournalStorage).items():
    if isinstance(_method, FunctionType) and not _name.startswith("_"):
        setattr(GuardedJournal, _name, patient(_method, lambda error: None, lambda storage: ""))


def make_storage(url: str, password: str | None) -> BaseStorage:
    """Open the storage at a URL, for a study that is to be made in it."""
    path = sqlite_path(url)
    fresh = path is not None and not Path(path).exists()
    try:
        return _open(with_password(url, password), make=True)
    except Exception as error:  # of SQLAlchemy, of the driver, or of the network
        if path is not None and fresh and Path(path).exists() and not Path(path).stat().st_size:
            Path(path).unlink()
        raise UserError(
            f"--storage {masked(url)} cannot be opened: {_said(error, url, password)}; expected an Optuna storage URL "
            f"such as {EXAMPLES}"
        ) from None


def join_storage(
    url: str, folder: Path, name: str, id: str, password: str | None, *, named: bool, reading: bool
) -> BaseStorage:
    """Open the storage that a study was made in. If the storage does not have the study, nothing is made in its place.

    named: the user has just named this URL, so a password may be sent there.
    """
    if not named:
        check_named(url, folder)
    what = f"{folder} keeps its trials in {masked(url)}"
    try:
        storage = _open(with_password(url, password), reading=reading)
        owned = owner(storage, name)
    except Exception as error:
        known = MASK not in url or password or os.environ.get(PASSWORD)
        hint = "" if known else f"; its password is not kept: set ${PASSWORD}"
        kind = StorageLost if is_away(error) else UserError
        raise kind(f"{what}, which cannot be read: {_said(error, url, password)}{hint}") from None
    if owned != id:
        found = f"that has no study {name!r}" if owned is None else f"its study {name!r} belongs to another folder"
        raise UserError(f"{what}, but {found}: put the storage back as it was, or begin anew with another --out")
    return storage


def open_to_join(url: str, password: str | None) -> BaseStorage:
    """Open a storage that the user has named, to see which studies it has. Nothing is made."""
    path = sqlite_path(url)
    if path is not None and not Path(path).is_file():
        raise UserError(f"{url}: there is no such file; expected the storage of a study")
    try:
        storage = _open(with_password(url, password), reading=True)
        storage.get_all_studies()
    except Exception as error:
        known = MASK not in url or password or os.environ.get(PASSWORD)
        hint = "" if known else f"; its password is not kept: set ${PASSWORD}"
        raise UserError(f"{masked(url)} cannot be read: {_said(error, url, password)}{hint}") from None
    return storage


def owner(storage: BaseStorage, name: str) -> str | None:
    """The id of the study folder that a study in the storage belongs to: None if there is no study of this name, ""
    if it belongs to no folder yet."""
    try:
        number = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    return str(storage.get_study_user_attrs(number).get(OWNER, ""))


def lock_in(storage: Any, url: str, name: str) -> AbstractContextManager[Any]:
    """The lock of a study, which all see that see its storage. name: of the study."""
    if (path := sqlite_path(url)) is not None:
        return FileLock(Path(path).with_name(f".{Path(path).name}.lock"))
    database = getattr(storage, "_backend", None)  # below Optuna's cache
    if isinstance(database, FewStatements) and database.engine.name == "postgresql":
        return ServerLock(database, name)
    return TicketLock(storage, name)


def find_sqlite(url: str, folder: Path, name: str, id: str) -> str:
    """The URL with the whole path of the file that holds the study.

    Older studies kept a path relative to where the search was started. And a study folder may have been moved together
    with the file in it.
    """
    path = sqlite_path(url)
    assert path is not None
    ancestors = [] if os.path.isabs(path) else folder.resolve().parents
    places = dict.fromkeys([Path(path).absolute(), folder.resolve() / Path(path).name, *(a / path for a in ancestors)])
    there = [place for place in places if place.is_file()]
    for place in there:
        with suppress(Exception):
            if owner(read_database(with_path(url, place)), name) == id:
                return with_path(url, place)
    if there:
        return with_path(url, there[0])  # join_storage then says that it does not have the study
    where = "" if os.path.isabs(path) else ", a path from where the search was started"
    raise UserError(
        f"{folder} keeps its trials in {url}{where}, but there is no such file: put the file back, put it into the "
        "study folder, or begin anew with another --out"
    )


def _open(url: str, make: bool = False, reading: bool = False) -> BaseStorage:
    if url.startswith(("redis://", "rediss://", "unix://")):
        from optuna.storages.journal import JournalRedisBackend

        class Backend(JournalRedisBackend):
            """Without snapshots. A snapshot is a pickle: whoever can write one could run any code here."""

            def load_snapshot(self) -> None:
                return None

            def save_snapshot(self, snapshot: bytes) -> None:
                pass

        return GuardedJournal(Backend(url))
    if is_proxy(url):
        return open_proxy(url)
    return read_database(url) if reading else open_database(url, make=make)


def _said(error: Exception, url: str, password: str | None) -> str:
    text = without_secrets_of(what_is_wrong(error).splitlines()[0], with_password(url, password))
    if isinstance(error, ImportError) and url.startswith(("postgresql:", "grpc:")):
        text += f" (pip install 'miniwin[{'grpc' if is_proxy(url) else 'postgres'}]')"
    return text
