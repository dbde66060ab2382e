"""The passwords of a study's storage: where they come from, where they go, and where they must not be seen."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from search_helpers import change, make, tried

from miniwin.blocks.messages.passwords import masked, without_secrets_of
from miniwin.search import promote, read_study, run_search, runner, storage, storage_trust, storage_url
from miniwin.search.launchers import local
from miniwin.search.launchers.crew import Crew
from miniwin.search.launchers.local import Local
from miniwin.search.live_table import SearchDisplay
from miniwin.search.records import collect
from miniwin.search.report import write_report
from miniwin.search.study import Study
from miniwin.search.worker import work
from miniwin.specs import UserError
from miniwin.tracking import Tracker


def test_passwords_are_neither_shown_nor_kept() -> None:
    for url, kept, password in (
        ("postgresql://me:pa%40ss/word@host:5432/db", "postgresql://me:***@host:5432/db", "pa@ss/word"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0", "secret"),
        ("mysql+pymysql://me@host/db", "mysql+pymysql://me@host/db", None),
        ("postgresql://me:***@host/db", "postgresql://me:***@host/db", None),
    ):
        assert storage_url.split_password(url) == (kept, password)
        assert storage_url.without_password(url) == storage_url.without_password(kept)
    assert masked("postgresql://me:p@ss@host/db?x=1") == "postgresql://me:***@host/db?x=1"
    assert (
        masked("http://host/index.json?sig=abc&a=b&api_token=c") == "http://host/index.json?sig=***&a=b&api_token=***"
    )
    assert masked("sqlite:////a:b@c.db") == "sqlite:////a:b@c.db"
    assert without_secrets_of("no host 'word@host'", "x://me:pass@word@host") == "no host '***@host'"
    for url in ("postgresql://me:pa@ss@host/db", "postgresql://host/db?user=me&password=secret"):
        with pytest.raises(UserError, match=r"MINIWIN_STORAGE_PASSWORD") as caught:
            storage_url.split_password(url)
        assert "ss@" not in str(caught.value) and "secret" not in str(caught.value)


def test_where_a_password_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = storage_url.with_password
    assert opened("postgresql://me:***@host/db", "p@ss") == "postgresql://me:p%40ss@host/db"
    assert opened("postgresql://me:***@host/db", None) == "postgresql://me@host/db"  # the driver knows where to look
    assert opened("redis://:***@host", None) == "redis://host"
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", "other")
    assert opened("postgresql://me:***@host/db", None) == "postgresql://me:other@host/db"
    assert opened("postgresql://me@host/db", None) == "postgresql://me:other@host/db"
    assert opened("redis://:***@host", None) == "redis://:other@host"
    assert opened("postgresql://me:***@host/db", "mine") == "postgresql://me:mine@host/db"
    assert opened("postgresql://me:kept@host/db", None) == "postgresql://me:kept@host/db"
    assert opened("sqlite:////a@b.db", None) == "sqlite:////a@b.db"
    assert opened("postgresql://host/db", None) == "postgresql://host/db"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that were opened. No network: behind each is a storage in memory."""
    opened: list[str] = []
    storages: dict[str, Any] = defaultdict(optuna.storages.InMemoryStorage)

    def open_(url: str, **how: Any) -> Any:
        opened.append(url)
        return storages[storage_url.without_password(url)]

    for name in (*storage_trust.SENT, storage_trust.NAMED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "_open", open_)
    return opened


@pytest.mark.parametrize("variable", ["MINIWIN_STORAGE_PASSWORD", "PGPASSWORD", "MYSQL_PWD"])
def test_a_password_is_not_sent_where_somebody_elses_study_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], variable: str
) -> None:
    study = make(tmp_path, "postgresql://me@mine/db")
    change(study.folder, storage="postgresql://me:***@theirs:99/db")
    monkeypatch.setenv(variable, "secret")
    asked.clear()
    said = (
        rf"{study.folder} keeps its trials in postgresql://me:\*\*\*@theirs:99/db, which you have not named here, and "
        rf"\${variable} would be sent to that storage: if you trust it, set MINIWIN_STORAGE_URL to its URL; else unset"
    )
    uses: list[Callable[[], Any]] = [
        lambda: read_study(study.folder),
        lambda: write_report(study.folder, tmp_path / "report.html"),
        lambda: promote(study.folder, name="mine"),
        lambda: work(study.folder, "0"),
        lambda: make(tmp_path),
        lambda: run_search(study.folder / "search.yaml", out=study.folder, progress=False),
    ]
    for use in uses:
        with pytest.raises(UserError, match=said):
            use()
    assert not asked

    monkeypatch.setenv("MINIWIN_STORAGE_URL", "postgresql://me:***@theirs:99/db")
    with pytest.raises(UserError, match="has no study 'small'"):
        read_study(study.folder)
    assert len(asked) == 1


def test_the_url_whose_password_is_sent_is_named_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    study = make(tmp_path, "postgresql://me:secret@mine/db")
    asked.clear()
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", "secret")
    for url in (
        "postgresql://me:***@mine/db?host=theirs",
        "postgresql://me:***@mine,theirs/db",
        "postgresql://me:***@mine:99/db",
        "postgresql://you:***@mine/db",
        "mysql://me:***@mine/db",
        "postgresql://me:@theirs/db",
        "redis://:***@theirs",
    ):
        change(study.folder, storage=url)
        with pytest.raises(UserError, match="which you have not named here"):
            read_study(study.folder)
    assert not asked


def test_a_study_of_ones_own_needs_no_more_than_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    study = make(tmp_path, "postgresql://me:secret@mine/db")
    asked.clear()
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", "secret")
    assert not read_study(study.folder).trials and len(collect(tried(make(tmp_path))).completed) == 1
    assert asked == ["postgresql://me:secret@mine/db"] * 2  # remembered
    (remembered,) = (tmp_path / "cache/storages").iterdir()
    assert remembered.read_text() == "postgresql://me@mine/db\n"

    shutil.rmtree(tmp_path / "cache")  # or another machine
    with pytest.raises(UserError, match="which you have not named here"):
        make(tmp_path)
    with pytest.raises(UserError, match="leave --storage out, or choose another --out"):
        make(tmp_path, "postgresql://me@other/db")
    assert not (tmp_path / "cache").exists()
    for url in ("postgresql://me@mine/db", None):
        assert len(collect(make(tmp_path, url)).completed) == 1
    assert asked == ["postgresql://me:secret@mine/db"] * 4

    shutil.rmtree(tmp_path / "cache")
    monkeypatch.delenv("MINIWIN_STORAGE_PASSWORD")
    assert len(read_study(study.folder).completed) == 1  # nothing would be sent


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows knows no such numbers")
def test_what_others_have_named_in_a_shared_cache_is_not_what_one_has_named_oneself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    url = "postgresql://me@theirs/db"
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", "secret")
    storage_trust.remember_named(url)
    storage_trust.check_named(url, tmp_path)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(UserError, match="which you have not named here"):
        storage_trust.check_named(url, tmp_path)
    monkeypatch.setattr(storage_trust, "_path", lambda url: next((tmp_path / "cache/storages").iterdir()))
    with pytest.raises(UserError, match="which you have not named here"):  # put there under our number
        storage_trust.check_named(url, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    storage_trust.remember_named(url)  # leaves what the other has named as it was
    assert len(list((tmp_path / "cache/storages").iterdir())) == 2


def test_workers_are_given_what_the_study_does_not_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path)
    study.password = "secret"
    uri = "postgresql://me:secret@nowhere/mlflow"
    given: dict[str, str] = {}
    monkeypatch.setattr(subprocess, "Popen", lambda *a, env, **k: given.update(env))
    local._start(Crew(study, 1, SearchDisplay(enabled=False), Local(), uri)._order(0))
    assert given["MINIWIN_STORAGE_PASSWORD"] == "secret" and given["MLFLOW_TRACKING_URI"] == uri
    assert "MINIWIN_STORAGE_URL" not in given
    study.about["storage"] = "postgresql://me:kept@nowhere/db"
    local._start(Crew(study, 1, SearchDisplay(enabled=False), Local())._order(0))
    assert given["MINIWIN_STORAGE_URL"] == "postgresql://me@nowhere/db"


def test_the_password_of_a_tracking_uri_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, study = "postgresql://me:secret@nowhere/mlflow", make(tmp_path)
    tracker = Tracker(uri)
    tracker.run_id = "1"
    monkeypatch.setattr(Tracker, "open", lambda *a, **k: tracker)
    assert runner._track(study, uri) is tracker
    assert Study(study.folder).about["tracking"] == {"uri": "postgresql://me:***@nowhere/mlflow", "run": "1"}
    tracker._give_up(RuntimeError(f"cannot reach {uri}"))
    said = capsys.readouterr().err
    assert "secret" not in said and "tracking to postgresql://me:***@nowhere/mlflow stopped" in said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_study_that_kept_its_password_goes_on_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.about["storage"] = "postgresql://me:secret@nowhere/db"
    study.write_about()
    assert stat.S_IMODE((study.folder / "study.json").stat().st_mode) == 0o600
    with pytest.raises(UserError, match=r"keeps its trials in (.*), which cannot be read: ") as caught:
        read_study(study.folder)
    assert "secret" not in str(caught.value) and "postgresql://me:***@nowhere/db" in str(caught.value)
