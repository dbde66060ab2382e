"""Optuna's database storage, with two changes: it waits for a database that is away, and it can be opened to read."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage

from miniwin.blocks.messages.passwords import masked, without_secrets_of
from miniwin.search.few_statements import FewStatements
from miniwin.search.locks import LockLost, check_held, may_lose
from miniwin.search.storage_url import sqlite_path
from miniwin.specs import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

T = TypeVar("T")
PATIENCE_SECONDS = 60.0  # for a database that is restarted
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
MAKING_TRIES = 20  # tries to make the tables while another process makes them too

_inside = threading.local()  # `busy` in a method of the storage: a method that it calls does not wait by itself


class StorageLost(UserError):
    """The database is away: for longer than a restart takes, if a study was open."""


def open_database(url: str, *, make: bool = False) -> BaseStorage:
    """Open the storage at a database's URL to write to it. make: also make tables that are missing."""
    tries = MAKING_TRIES if make else 1
    while True:
        tries -= 1
        try:
            # To Optuna braces would be a template. pool_pre_ping replaces a stale connection before it is used.
            storage = _PatientStorage(
                url.replace("{", "{{").replace("}", "}}"),
                engine_kwargs={"pool_pre_ping": True},
                skip_table_creation=not make,
            )
            return optuna.storages.get_storage(storage)
        except Exception as error:
            if not tries or not _made_by_another(error):
                raise
            time.sleep(random.uniform(0.01, 0.1))


def read_database(url: str) -> BaseStorage:
    """Open the storage at a database's URL only to read it: nothing is made, altered or upgraded."""
    path = sqlite_path(url)
    if path is not None:
        arguments = {"creator": lambda: _read_sqlite(Path(path))}
        return optuna.storages.get_storage(
            _PatientStorage("sqlite://", engine_kwargs=arguments, skip_table_creation=True)
        )
    if url.lower().startswith("sqlite"):  # a `file:` URI: `mode` is a part of it
        url += f"{'&' if '?' in url else '?'}mode=ro"
    options = {"postgresql_readonly": True} if url.startswith("postgresql") else {}
    storage = _PatientStorage(
        url.replace("{", "{{").replace("}", "}}"),
        engine_kwargs={"pool_pre_ping": True, "execution_options": options},
        skip_table_creation=True,
    )
    return optuna.storages.get_storage(storage)


def _read_sqlite(path: Path) -> sqlite3.Connection:
    """A connection that can only read a file, and leaves no other file beside it."""
    with open(path, "rb") as file:
        logged = file.read(20)[18:20] == b"\x02\x02"  # write-ahead log: new data goes into a second file, `-wal`
    log, shared = (path.with_name(f"{path.name}{end}").exists() for end in ("-wal", "-shm"))
    if not logged or not log or shared:
        # Without a log nobody writes to the database. SQLite would make a log unless it is told so.
        alone = "&immutable=1" if logged and not log else ""
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro{alone}", uri=True)
        try:
            connection.execute("select count(*) from sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if "readonly" not in str(error):
                raise
    return _copied(path)


def _copied(path: Path) -> sqlite3.Connection:
    """A connection to a copy. A file whose writer was killed is mended by reading it, so the copy is mended."""
    memory = sqlite3.connect(":memory:")
    with TemporaryDirectory() as folder:
        for end in ("", "-journal", "-wal"):
            if (part := path.with_name(path.name + end)).exists():
                shutil.copyfile(part, Path(folder) / part.name)
        with closing(sqlite3.connect(Path(folder) / path.name)) as copy:
            copy.backup(memory)
    return memory


def _made_by_another(error: Exception) -> bool:
    """Whether another process made the same tables at the same time: a second look finds them there."""
    text = str(getattr(_database_error(error), "orig", "")).lower()
    return any(words in text for words in ("already exists", "unique constraint", "duplicate key", "is locked"))


# -- patience


class _PatientStorage(FewStatements):
    """Optuna's storage, except that a method that finds the database away tries again for as long as a restart takes.

    A write that arrives twice does no harm: an attribute or a value is the same, and a trial too many is an orphan,
    which the next worker takes over.
    """


def patient(
    method: Callable[..., Any], away: Callable[[Exception], str | None], url: Callable[[Any], str]
) -> Callable[..., Any]:
    """A method of a storage that waits for a storage that is away. url: of the storage that it is called on.

    A thread that holds a lock in the server does not wait: the lock may be somebody else's by then (locks.py).
    """

    @wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if getattr(_inside, "busy", False):
            return method(self, *arguments, **named)
        _inside.busy = True
        try:
            check_held()
            return patiently(url(self), lambda: method(self, *arguments, **named), away)
        finally:
            _inside.busy = False

    return call


def patiently(url: str, work: Callable[[], T], away: Callable[[Exception], str | None] | None = None) -> T | bool:
    """Do work again for as long as a restart of the storage takes. away: what a failure says if the storage is away."""
    began, wait, again = time.monotonic(), FIRST_WAIT, False
    while True:
        try:
            return work()
        except optuna.exceptions.UpdateFinishedTrialError:
            if not again:
                raise
            return True  # the first try had arrived
        except Exception as error:
            said = (away or _away)(error)
            if said is None:
                raise
            said, shown = without_secrets_of(said, url), masked(url)
            log = logging.getLogger(__name__)
            if may_lose():
                log.warning("the storage %s does not answer, and the lock of the study is lost: %s", shown, said)
                raise LockLost from None
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise StorageLost(
                    f"the storage {shown} does not answer: {said}; nothing is lost, and the same command goes on once "
                    "it does"
                ) from None
            if not again:
                log.warning("the storage %s does not answer, waiting: %s", shown, said)
            again = True
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT)


def _database_error(error: BaseException | None) -> BaseException | None:
    """SQLAlchemy's error about what the driver raised. Optuna wraps it in an error of its own.

    SQLAlchemy is no dependency of ours, only of Optuna's: its errors are known by an attribute, not by their class.
    """
    while error is not None and not hasattr(error, "connection_invalidated"):
        error = error.__cause__
    return error


def what_is_wrong(error: Exception) -> str:
    """The error in the driver's words, or in its own if no driver raised it."""
    found: Any = _database_error(error) or error
    if isinstance(error, ImportError):  # Optuna's words do not name the driver that is missing
        found = error.__cause__ or error
    details = getattr(found, "details", None)  # of gRPC
    said = (details() if callable(details) else None) or getattr(found, "orig", None) or found
    return str(said).strip() or type(found).__name__


def is_away(error: Exception) -> bool:
    """Whether the database is away or busy, rather than refuses what it was asked."""
    return _away(error) is not None


def _away(error: Exception) -> str | None:
    """What the driver says if the database is away or busy; None for any other failure."""
    found: Any = _database_error(error)
    if found is None:
        return None
    text = what_is_wrong(found)
    if isinstance(found.orig, sqlite3.Error):
        return text if "is locked" in text else None
    away = found.connection_invalidated or type(found).__name__ in ("OperationalError", "InterfaceError")
    return text.splitlines()[0] if away else None


for _name, _method in (vars(RDBStorage) | vars(FewStatements)).items():
    if isinstance(_method, FunctionType) and not _name.startswith("__"):
        setattr(_PatientStorage, _name, patient(_method, _away, lambda storage: storage.url))
