"""The lock of a study in PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from miniwin.search.database import patiently
from miniwin.search.locks import LockInServer, LockLost

if TYPE_CHECKING:
    from miniwin.search.few_statements import FewStatements


class ServerLock(LockInServer):
    """An advisory lock of PostgreSQL, held by a session of the server.

    While a thread holds it, everything that the thread writes to the storage goes through the same session. So where
    the lock is gone, writing fails as well, and there is no moment in between.
    """

    def __init__(self, storage: FewStatements, name: str) -> None:
        super().__init__()
        self._storage = storage
        self._key = int.from_bytes(sha256(f"miniwin {name}".encode()).digest()[:8], "big", signed=True)

    def take(self) -> None:
        self._mine.connection = patiently(self._storage.url, self._connect)
        self._storage.bind(self._mine.connection)

    def _connect(self) -> Any:
        connection = self._storage.engine.connect()
        try:
            connection.exec_driver_sql(f"select pg_advisory_lock({self._key})")
            connection.commit()  # the lock is the session's, and outlives the transaction
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection

    def check(self) -> None:
        if self._mine.connection.invalidated:
            raise LockLost

    def give_back(self) -> None:
        connection = self._mine.connection
        del self._mine.connection
        self._storage.bind(None)
        given = False
        with suppress(Exception):  # a server that is away has given it to others already
            connection.exec_driver_sql(f"select pg_advisory_unlock({self._key})")
            connection.commit()
            given = True
        with suppress(Exception):
            if not given:
                connection.invalidate()  # or the next who uses this session would hold the lock
            connection.close()
