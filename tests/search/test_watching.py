"""`miniwin search status --watch`: it reads only, says what changes, and ends when the study is over or by Ctrl-C."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT
from search_helpers import make, tried
from tiny import run_cli

from miniwin.search import resume_search, watch_study, watching
from miniwin.search.claims import take_work
from miniwin.search.study import Study


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def between_looks(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Do one step after each look at the study, in place of the waiting."""
    left = list(steps)
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: left.pop(0)())


def test_what_changes_is_said_until_the_study_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tried(make(tmp_path, constraints=[], budget={"trials": 3}))
    between_looks(monkeypatch, lambda: tried(study), lambda: None, lambda: tried(study))
    code, out, err = run_cli("search", "status", str(study.folder), "--watch")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "small: 1 of 3 trials are there; going on"
    assert [line.split("  ")[0] for line in lines[1:3]] == ["trial 1", "trial 2"]
    assert lines[3].startswith("small: 3 of 3 trials trained") and len(lines) > 4


def test_a_study_that_is_watched_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tried(make(tmp_path, budget={"trials": 2}))
    take_work(study, "0")  # it runs, as far as anybody can see
    before = files(tmp_path)

    def stop() -> None:
        raise KeyboardInterrupt

    between_looks(monkeypatch, lambda: None, stop)
    assert run_cli("search", "status", str(study.folder), "--watch")[0] == 0
    assert files(tmp_path) == before


def test_a_larger_budget_is_watched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tried(make(tmp_path, budget={"trials": 2}))

    def extend() -> None:
        monkeypatch.setattr("miniwin.search.launchers.crew.Crew.run", lambda crew: None)
        resume_search(study.folder, trials=3, tracking="off", progress=False)

    later: list[Callable[[], object]] = [extend, lambda: tried(Study(study.folder)), lambda: tried(Study(study.folder))]
    between_looks(monkeypatch, *later)
    assert len(watch_study(study.folder).trained) == 3


def test_a_terminal_gets_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    watch_study(tried(make(tmp_path, budget={"trials": 2}), 2).folder)
    said = screen.getvalue()
    assert "search small" in said and "2 of 2 trials" in said and "\x1b[" in said


def test_ctrl_c_ends_the_watching_and_nothing_else(tmp_path: Path) -> None:
    study = tried(make(tmp_path, budget={"trials": 2}))
    command = [sys.executable, "-m", "miniwin", "search", "status", str(study.folder), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "small: 1 of 2 trials are there; going on\n"
        watcher.send_signal(signal.SIGINT)
        assert watcher.communicate(timeout=600) == ("", "") and watcher.returncode == 0


def test_all_and_watch_do_not_go_together(tmp_path: Path) -> None:
    code, _, err = run_cli("search", "status", "anything", "--watch", "--all")
    assert code == 2 and "--all: got it beside --watch" in err
