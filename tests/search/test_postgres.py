"""A study in a real PostgreSQL that is restarted. test_storage.py does without the server."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import optuna
import pytest
from postgres import PASSWORD, Postgres
from search_helpers import make, tried, write_search

from miniwin.search import read_study, worker
from miniwin.search.creation import create_study
from miniwin.search.database import StorageLost
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.specs import UserError, load_search_spec


def test_a_study_outlives_its_server(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.database("outlives")
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    spec = load_search_spec(write_search(tmp_path, baseline=None))
    study = tried(create_study(spec, tmp_path, out=tmp_path / "study", storage=url))
    postgres.restart()
    tried(study)
    assert len(collect(study).completed) == 2
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert not kept and "me:***@" in study.about["storage"]

    with pytest.raises(
        UserError, match=r"cannot be read: .*; its password is not kept: set \$MINIWIN_STORAGE_PASSWORD"
    ):
        read_study(study.folder)
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", PASSWORD)
    assert len(read_study(study.folder).completed) == 2
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        Study(study.folder, reading=True).optuna.set_user_attr("mine", 1)
    assert "read-only transaction" in str(caught.value.__cause__)
    with pytest.raises(UserError, match="already has a study named 'small', which belongs to another study folder"):
        create_study(spec, tmp_path, out=tmp_path / "other", storage=url)
    postgres.stop()
    with pytest.raises(UserError, match=r"which cannot be read: .*refused"):
        read_study(study.folder)
    postgres.start()


def test_a_worker_that_starts_while_the_server_is_away_waits(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", PASSWORD)
    folder = tried(make(tmp_path, postgres.database("away"), budget={"trials": 1})).folder
    opened = Event()

    def back(seconds: float) -> None:
        postgres.start()
        opened.set()

    postgres.stop()
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=back, monotonic=time.monotonic))
    assert worker.work(folder, "0") == worker.DONE
    assert opened.is_set()
    postgres.stop()
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=count(0, 40).__next__))
    with pytest.raises(StorageLost, match="which cannot be read"):
        worker.work(folder, "0")
    postgres.start()
