"""Where things are kept: without a home folder, in folders with strange names, and in one that is no text at all."""

from __future__ import annotations

import os
import pwd
import sqlite3
import tempfile
from pathlib import Path

import pytest
from foreign import toy_folder, use_toys
from search_helpers import write_search
from sqlalchemy import create_engine, text
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text
from zoo_runs import make_run

import miniwin
from miniwin.files import folders
from miniwin.files.folders import cache_folder
from miniwin.runs import read_run
from miniwin.search.creation import create_study
from miniwin.specs import UserError, dump_yaml, load_search_spec
from miniwin.tracking import Tracker, sqlite_file, tracking_uri
from miniwin.zoo import add, list_entries


def succeeds(*arguments: str) -> str:
    code, out, err = run_cli(*arguments)
    assert code == 0, err
    return out


# -- no home folder


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in a container: no HOME, and a user of a number that the system does not know."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name in ("HOME", "MINIWIN_CACHE", "MINIWIN_ZOO", "MINIWIN_HOME") or name.startswith("XDG_"):
            monkeypatch.delenv(name)

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def test_commands_work_without_a_home_folder(homeless: Path) -> None:
    write_text(homeless)
    Path("m.yaml").write_text(dump_yaml(tiny_model()), encoding="utf-8")
    Path("t.yaml").write_text(dump_yaml(tiny_train(tokens=256)), encoding="utf-8")
    assert "miniwin-1m@1.0.0" in succeeds("zoo", "list")
    succeeds("train", "m.yaml", "--train", "t.yaml", "--out", "run", "--tracking", "off", "--device", "cpu", "--quiet")
    succeeds("generate", "run", "-n", "2")
    succeeds("generate", "miniwin-1m", "-n", "2")
    assert not (homeless / "~").exists() and {path.name for path in homeless.iterdir()} >= {"run", "tmp"}
    cache = homeless / "tmp" / f"miniwin-{os.getuid()}"
    assert cache_folder() == cache and cache.stat().st_mode & 0o777 == 0o700 and (cache / "data").is_dir()


def test_a_zoo_has_no_place_without_a_home_folder(homeless: Path) -> None:
    make_run(homeless / "run")
    said = r"there is no home folder \(HOME is not set.*\): set MINIWIN_ZOO to a folder"
    with pytest.raises(UserError, match=said):
        add("run", name="mine")
    with pytest.raises(UserError, match=said):
        miniwin.zoo.user_zoo()
    assert all(entry.source == "built-in" for entry in list_entries())
    code, _, err = run_cli("zoo", "add", "run", "--name", "mine", "--no-evaluate")
    assert code == 2 and "set MINIWIN_ZOO to a folder" in err
    assert add("run", name="mine", zoo="there").ref == "mine@1.0.0"


@pytest.mark.parametrize("kind", ["writable", "link", "file"])
def test_a_cache_that_others_could_have_filled_is_not_believed(kind: str, homeless: Path) -> None:
    place = homeless / "tmp" / f"miniwin-{os.getuid()}"
    if kind == "writable":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "link":
        (homeless / "elsewhere").mkdir()
        place.symlink_to(homeless / "elsewhere")
    else:
        place.write_text("", encoding="utf-8")
    folders._of_this_process.cache_clear()
    assert cache_folder() != place and cache_folder().stat().st_mode & 0o777 == 0o700
    assert cache_folder() == cache_folder() and cache_folder().parent == homeless / "tmp"


def test_no_place_at_all_says_what_to_set(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(homeless / "lacking"))
    code, _, err = run_cli("generate", "miniwin-1m", "-n", "1")
    assert code == 2 and err.endswith(": set MINIWIN_CACHE to a folder\n"), err


# -- folders with strange names


@pytest.mark.parametrize("name", ["plain", "a b", "what?", "a#b", "50%", "p%41", "ü", "a?b=c&d"])
def test_the_database_of_mlflow_lies_in_the_folder_that_was_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path / name))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri, file = tracking_uri(), tmp_path / name / "mlflow.db"
    assert sqlite_file(uri) == file
    with create_engine(uri).begin() as database:
        database.execute(text("create table made (here int)"))
    assert sqlite3.connect(file).execute("select name from sqlite_master").fetchall() == [("made",)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    if name == "plain":
        assert uri == f"sqlite:///{file}", "as it was always recorded"


def test_a_folder_that_no_url_can_name_ends_the_tracking_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path / os.fsdecode(b"\xff?")))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker.open()
    tracker.log_metrics({"a": 1.0}, 1)
    assert tracker.run_id is None and "stopped, the run goes on" in capfd.readouterr().err


# -- a folder whose name is no text


@pytest.fixture
def unspeakable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this system has no such names")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINIWIN_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(folder / "zoo"))
    monkeypatch.setenv("MINIWIN_HOME", str(folder / "home"))
    return folder


def test_training_and_using_in_a_folder_whose_name_is_no_text(
    unspeakable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(unspeakable)
    at = str(unspeakable)
    Path("m.yaml").write_text(dump_yaml(tiny_model()), encoding="utf-8")
    Path("t.yaml").write_text(dump_yaml(tiny_train(tokens=1280)), encoding="utf-8")
    assert "caf\\udce9" in succeeds("check", f"{at}/m.yaml", f"{at}/t.yaml")
    for _ in range(2):  # the second time it is read back
        command = ["train", f"{at}/m.yaml", "--train", f"{at}/t.yaml", "--out", f"{at}/run"]
        assert "caf\\udce9/run" in succeeds(*command, "--tracking", "off", "--device", "cpu", "--quiet")
    assert read_run("run")["train"]["data"]["paths"] == [str(unspeakable / "text.txt")]
    succeeds("generate", f"{at}/run", "-n", "2", "--save-session", f"{at}/said")
    succeeds("generate", f"{at}/run", "-n", "2", "--load-session", f"{at}/said")
    few = ["--lengths", "32", "--tokens", "32", "--no-recall", "--no-speed", "--quiet"]
    succeeds("eval", f"{at}/run", *few, "--json", f"{at}/numbers.json")
    succeeds("explain", f"{at}/run", "--html", f"{at}/page.html")
    succeeds("zoo", "add", f"{at}/run", "--name", "mine", "--no-evaluate")
    succeeds("zoo", "verify", "mine")
    succeeds("zoo", "list")
    succeeds("zoo", "show", "mine")
    succeeds("zoo", "index", f"{at}/zoo")
    succeeds("export", "mine", "--to", f"{at}/exported", "--as", "custom")
    use_toys(monkeypatch)
    toy_folder(unspeakable / "toy")
    succeeds("import", f"{at}/toy", "--to", f"{at}/imported")
    assert miniwin.load(f"{at}/imported").spec.hash


def test_a_study_in_a_folder_whose_name_is_no_text(unspeakable: Path) -> None:
    from miniwin.search import worker

    path = write_search(unspeakable, budget={"trials": 1}, baseline=None, rungs=[])
    create_study(load_search_spec(path), unspeakable, out=unspeakable / "study")
    assert worker.work(unspeakable / "study", "0") == worker.DONE
    for command in (["status"], ["report"], ["promote", "--name", "mine", "--quiet"]):
        succeeds("search", command[0], str(unspeakable / "study"), *command[1:])
    assert (unspeakable / "study" / "report.html").is_file() and "mine" in {entry.name for entry in list_entries()}
