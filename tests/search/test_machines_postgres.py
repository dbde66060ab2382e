"""Workers on several machines, with a real PostgreSQL between them: its lock, its restarts, and `kill -9`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Command
from killing import kill_worker, wait_for, weights
from postgres import PASSWORD, Postgres
from search_helpers import write_search

from miniwin.files.folders import cache_folder
from miniwin.runs import read_metrics
from miniwin.search import read_study
from miniwin.search.creation import create_study
from miniwin.search.locks import LockLost
from miniwin.search.stopping import at_work
from miniwin.search.study import Study, find_study
from miniwin.specs import load_search_spec
from miniwin.training.launch import train


@pytest.fixture
def url(postgres: Postgres, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty database. Its password is in the environment alone."""
    monkeypatch.setenv("MINIWIN_STORAGE_PASSWORD", PASSWORD)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    return postgres.database(request.node.name).replace(f":{PASSWORD}", "")


def make(folder: Path, url: str, **changes: object) -> Study:
    spec = load_search_spec(write_search(folder, **changes))  # type: ignore[arg-type]
    return create_study(spec, folder, out=folder / "study", storage=url, place=str(folder / "place"))


def in_a_thread(work: Callable[[], object], study: Study) -> None:
    """Do work under the lock of a study, in another thread: locks are of threads."""
    thread = threading.Thread(target=study.locked, args=(work,))
    thread.start()
    thread.join()


def test_one_holds_the_lock_at_a_time(url: str, tmp_path: Path) -> None:
    make(tmp_path, url)
    inside, most = [0], [0]

    def work(study: Study) -> None:
        for _ in range(5):
            with study.lock, study.lock:  # whoever has it may take it again
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                done = study.optuna.user_attrs.get("done", 0)
                study.optuna.set_user_attr("done", done + 1)
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(Study(find_study(url)),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and Study(find_study(url)).optuna.user_attrs["done"] == 15


def test_a_lock_that_the_server_has_lost_lets_nothing_be_written(url: str, tmp_path: Path, postgres: Postgres) -> None:
    one = make(tmp_path, url)
    two = Study(find_study(url))
    with pytest.raises(LockLost), one.lock:
        one.optuna.set_user_attr("first", 1)
        postgres.restart()
        in_a_thread(lambda: two.optuna.set_user_attr("mine", 2), two)  # it is free again, so both would write
        one.optuna.set_user_attr("mine", 1)
    assert two.optuna.user_attrs["mine"] == 2

    tries = []

    def work() -> int:
        tries.append(len(tries))
        one.optuna.set_user_attr("begun", len(tries))
        if len(tries) == 1:
            postgres.restart()
        one.optuna.set_user_attr("ended", len(tries))
        return len(tries)

    assert one.locked(work) == 2 and tries == [0, 1]
    assert one.optuna.user_attrs["ended"] == 2
    in_a_thread(lambda: None, two)  # and it was given back


def test_a_password_in_the_url_is_used_and_not_kept(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, url)
    monkeypatch.delenv("MINIWIN_STORAGE_PASSWORD")
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "elsewhere"))
    assert not read_study(url.replace("me@", f"me:{PASSWORD}@")).trials
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


def test_a_killed_worker(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither machine sees the study folder: they have the URL, and the place."""
    train_spec = {"tokens": 16_384, "checkpoint_seconds": 0.05}  # 128 steps
    study = make(tmp_path, url, train=train_spec, baseline=None, budget={"trials": 2})
    (tmp_path / "study").rename(tmp_path / "out of sight")
    study = Study(find_study(url))
    cache = cache_folder()

    def worker(name: str) -> Command:
        for kind in ("HOME", "CACHE"):
            monkeypatch.setenv(f"MINIWIN_{kind}", str(tmp_path / name / kind))
        arguments = ["search", "worker", "--study", url, "--place", str(tmp_path / "place"), "--threads", "1"]
        return Command(*arguments, told=tmp_path / f"{name}.json")

    one = worker("one")
    wait_for(lambda: list((tmp_path / "place").rglob("checkpoint.pt")) or not one.running(), "a checkpoint")
    assert one.running(), one.ends()
    (lease,) = at_work(study).values()
    kill_worker(lease.pid)
    wait_for(lambda: not lease.alive(), "the killed worker to be gone")

    code, _, errors = worker("two").ends()
    assert code == 0, errors
    monkeypatch.setenv("MINIWIN_CACHE", str(cache))
    data = read_study(url)
    assert data.finished and len(data.completed) == 2
    (again,) = [trial for trial in data.trained if trial.attempts > 1]
    for trial in data.trained:
        assert trial.run_folder is not None and trial.run_folder.is_relative_to(tmp_path / "place")
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, 129))
    assert not at_work(study) and not (tmp_path / "study").exists()
    assert again.spec is not None and again.train is not None and again.run_folder is not None
    straight = train(again.spec, again.train, out=tmp_path / "straight", base=tmp_path, progress=False, tracking="off")
    assert weights(straight.folder) == weights(again.run_folder)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert not kept
