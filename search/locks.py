"""The lock of a study: every change to a study is made under it.

    journal, SQLite      a file lock beside the file, which the operating system takes back when its holder dies
    PostgreSQL           an advisory lock, which the server takes back when its holder is gone (server_lock.py)
    any other storage    tickets in a small study of Optuna's (ticket_lock.py): only Optuna's own calls are needed

A lock in a server may be lost while it is held: the server is restarted, or this process sleeps for too long. From then
on nothing may be written, since another process may hold the lock. So the storage asks `check_held` before each call,
and the work ends with `LockLost`. To the study that is a kill at that point, which the next worker can mend. Here it is
the same worker: `under` does the work once more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")
_held = threading.local()


class LockLost(Exception):
    """The lock of the study was lost while it was held. What was written by then is sound, and the work is repeated."""


class Losable(Protocol):
    def check(self) -> None:
        """Raise LockLost if the lock may no longer be this thread's."""


def under(lock: AbstractContextManager[Any], work: Callable[[], T]) -> T:
    """Do work under the lock of a study; once more, if the lock was lost. Work that was cut off can be done again."""
    while True:
        try:
            with lock:
                return work()
        except LockLost:
            continue


def check_held() -> None:
    """Raise LockLost if this thread held a lock in a server, and may have lost it."""
    for lock in _locks():
        lock.check()


def may_lose() -> bool:
    """Whether this thread holds a lock that a server may have given to somebody else."""
    return bool(_locks())


def _locks() -> list[Losable]:
    """Those in servers that this thread holds."""
    if not hasattr(_held, "locks"):
        _held.locks = []
    found: list[Losable] = _held.locks
    return found


class LockInServer:
    """What locks in a server share: a thread that holds one may take it again."""

    def __init__(self) -> None:
        self._mine = threading.local()

    def take(self) -> None:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError

    def give_back(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        depth = getattr(self._mine, "depth", 0)
        if depth == 0:
            self.take()
            _locks().append(self)
        self._mine.depth = depth + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mine.depth -= 1
        if self._mine.depth == 0:
            _locks().remove(self)
            self.give_back()
