"""Where Optuna keeps a study: a journal file in the study folder by default, or any Optuna storage URL.

Optuna's own locks for journal files outlive a killed process by half a minute, and a line that a killed process had
half written makes the file unreadable once another line follows. So the journal is written under a lock that the
operating system takes back when its holder dies, and a torn last line is cut off before anything is appended.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from miniwin.specs import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "journal.log"

# What happens is shown in our own table; an ignored repeated report after a resume is expected.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", message="The reported value is ignored")
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class KillSafeLock(JournalFileOpenLock):
    """A lock that dies with its holder, and mends what the last holder left half-written."""

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
        while end > 0:  # from the back, a block at a time, for the last line end
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage at `url`, or the journal file in the study folder."""
    if url is None:
        journal = folder / JOURNAL
        return optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock_obj=KillSafeLock(journal)))
    try:
        if url.startswith(("redis://", "rediss://", "unix://")):
            from optuna.storages.journal import JournalRedisBackend

            return optuna.storages.JournalStorage(JournalRedisBackend(url))
        return optuna.storages.get_storage(url)
    except Exception as error:  # of SQLAlchemy, of the driver, or of the network
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--storage {_without_password(url)} cannot be opened: {first}; expected an Optuna storage URL such as "
            "sqlite:///study.db, postgresql://user@host/db or redis://host:6379"
        ) from None


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{host}"
