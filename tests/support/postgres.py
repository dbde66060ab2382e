"""A throwaway PostgreSQL server: its own folder and port, no other user's data, gone when its block ends.

It needs the server's programs (`apt-get install postgresql`) and psycopg (`pip install 'miniwin[postgres]'`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "secret-word"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0  # whom the server refuses to run as
PREFIX = ["runuser", "-u", "postgres", "--"] if ROOT else []


def programs() -> Path | None:
    """The folder with initdb and pg_ctl; Debian does not put it into PATH."""
    here = [Path(shutil.which("pg_ctl") or "/none/pg_ctl").parent, *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return next((folder for folder in reversed(here) if (folder / "pg_ctl").exists()), None)


def missing() -> str | None:
    """Why no server can be started here; None if one can."""
    if programs() is None:
        return "PostgreSQL is not installed here"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed here"
    if ROOT and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root"
    return None


@dataclass(frozen=True)
class Postgres:
    """A server. url: of its first database, with the password."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return self._url("postgres")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """At once, as a crash would: what was under way is rolled back when the server starts again."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def restart(self) -> None:
        self.stop()
        self.start()

    def database(self, name: str) -> str:
        """Make an empty database. Returns its URL, with the password."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'create database "{name}"')
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://me:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        home = programs()
        assert home is not None
        command = [*PREFIX, str(home / program), *arguments]
        # Not a pipe: the server would hold its other end for as long as it runs.
        with open(self.folder / "said", "w+") as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd=self.folder, timeout=120)
            said.seek(0)
            assert done.returncode == 0, said.read()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server for as long as the block runs."""
    # Not pytest's tmp_path: its parents are for one user, and as root the server runs as another.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if ROOT:
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = Postgres(folder, free.getsockname()[1])
        server._run("initdb", "-D", "data", "-U", "me", "-A", "scram-sha-256", "--pwfile=password", "-N")
        server.start()
        try:
            yield server
        finally:
            server.stop()
