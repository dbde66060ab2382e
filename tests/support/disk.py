"""Nobody pulls the plug on a test, so none waits for the disk. What a killed process has written is there all the same.

`test_other_systems.py` and `test_writing.py` look at which files are synced, and put functions of their own here.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any

_connect = sqlite3.connect


def do_not_wait() -> None:
    """For this process, and all that are forked from it."""
    os.fsync = _fsync
    sqlite3.connect = sqlite3.dbapi2.connect = _connect_and_not_wait  # type: ignore[assignment]


def _fsync(descriptor: int) -> None:
    os.fstat(descriptor)


def _connect_and_not_wait(*arguments: Any, **options: Any) -> sqlite3.Connection:
    """SQLite syncs in C: a commit takes several times as long as all else that it does."""
    connection = _connect(*arguments, **options)
    ((patience,),) = connection.execute("pragma busy_timeout")
    connection.execute("pragma busy_timeout = 0")
    with suppress(sqlite3.Error):  # locked, or not a database: the next statement says so
        connection.execute("pragma synchronous = off")
    connection.execute(f"pragma busy_timeout = {patience}")
    return connection
