"""A study in a real PostgreSQL that is restarted. Needs the server's programs and psycopg; test_storage.py does not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from search_helpers import tried, write_search

from miniwin.search import read_study
from miniwin.search.creation import create_study
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.specs import UserError, load_search_spec

PROGRAMS = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path(shutil.which("initdb") or "/none/initdb").parent]
HOME = next((folder for folder in PROGRAMS if (folder / "initdb").exists()), None)
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0  # whom the server refuses to run as

pytestmark = [
    pytest.mark.skipif(HOME is None, reason="PostgreSQL is not installed here"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed here"),
    pytest.mark.skipif(ROOT and shutil.which("runuser") is None, reason="PostgreSQL does not run as root"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A URL, with its password, and what starts, stops and restarts the server."""
    assert HOME is not None
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "password").write_text("secret-word")
    prefix: list[str] = []
    if ROOT:
        prefix = ["runuser", "-u", "postgres", "--"]
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
        for path in list(folder.parents)[:2]:  # pytest's own, which are for one user
            path.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(HOME / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

    def control(what: str) -> None:
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-l", str(folder / "log"), "-o", options, "-w", "-m", "immediate", what)

    run("initdb", "-U", "me", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-N")
    control("start")
    yield f"postgresql+psycopg://me:secret-word@127.0.0.1:{port}/postgres", control
    control("stop")


def test_a_study_outlives_its_server(
    server: tuple[str, Callable[[str], None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, control = server
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    spec = load_search_spec(write_search(tmp_path, baseline=None))
    study = tried(create_study(spec, tmp_path, out=tmp_path / "study", storage=url))
    control("restart")
    tried(study)
    assert len(collect(study).completed) == 2
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"secret-word" in path.read_bytes()]
    assert not kept and "me:***@" in study.about["storage"]

    with pytest.raises(
        UserError, match=r"cannot be read: .*; its password is not kept: set \$MINIWIN_STORAGE_PASSWORD"
    ):
        read_study(study.folder)
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", "secret-word")
    assert len(read_study(study.folder).completed) == 2
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        Study(study.folder, reading=True).optuna.set_user_attr("mine", 1)
    assert "read-only transaction" in str(caught.value.__cause__)
    with pytest.raises(UserError, match="already has a study named 'small', which belongs to another study folder"):
        create_study(spec, tmp_path, out=tmp_path / "other", storage=url)
    control("stop")
    with pytest.raises(UserError, match=r"which cannot be read: .*refused"):
        read_study(study.folder)
    control("start")
