"""Stopping a study from another process, and going on with it from its folder alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Command
from search_helpers import make, tried, write_search
from tiny import run_cli

from miniwin.runs import read_metrics
from miniwin.search import read_study, resume_search, stop_search, stopping
from miniwin.search.claims import Claim, take_work
from miniwin.search.launchers.crew import Crew
from miniwin.search.launchers.local import Local
from miniwin.search.stopping import NEVER, Listening, at_work, last_request
from miniwin.search.study import Study
from miniwin.search.study_json import write_about
from miniwin.search.worker import ALL_STOPPED, work
from miniwin.specs import UserError


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 600  # only a hang takes that long
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_study_stops_everywhere_and_goes_on_from_its_folder(tmp_path: Path) -> None:
    spec = write_search(tmp_path, train={"tokens": 16_384, "checkpoint_seconds": 1e6}, baseline=None, constraints=[])
    study = tmp_path / "study"

    def command(*arguments: str, step_seconds: float = 0.0) -> Command:
        more = ("--workers", "2", "--tracking", "off")
        return Command("search", *arguments, *more, told=tmp_path / "told.json", step_seconds=step_seconds)

    running = command("run", str(spec), "--out", str(study), "--set", "budget.trials=2", step_seconds=0.2)
    wait_for(lambda: not running.running() or ((study / "leases").is_dir() and len(at_work(Study(study))) == 2))
    said: list[str] = []
    assert set(stop_search(study, say=said.append)) == {"trial 0", "trial 1"}
    assert [line.split(",")[0] for line in said] == ["asked to stop: trial 0", "asked to stop: trial 1"]
    code, _, errors = running.ends()
    assert code == 130 and "miniwin search stop has stopped it" in errors and "was killed" not in errors
    assert not at_work(Study(study)) and {trial.state for trial in read_study(study).trials} == {"running"}

    for name in ("search", "model", "train", "base"):
        (tmp_path / f"{name}.yaml").unlink()
    code, out, errors = command("resume", str(study), "--trials", "3").ends()
    assert code == 0, errors
    assert "3 of 3 trials trained" in out and f"next: miniwin search report {study}" in out
    data = read_study(study)
    assert data.finished and [trial.attempts for trial in data.completed][:2] == [2, 2]
    for trial in data.completed:
        assert trial.run_folder is not None
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, 129))


def test_a_request_is_for_the_workers_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LISTEN_SECONDS", 0.01)
    stopped: list[int] = []
    monkeypatch.setattr(stopping.signal, "raise_signal", stopped.append)
    study = make(tmp_path)
    assert last_request(study) == NEVER
    with Listening(Study(study.folder)) as one, Listening(Study(study.folder)) as other:
        assert not one.heard and not other.heard
        assert stop_search(study.folder, finish=True) == {}
        wait_for(lambda: one.heard and other.heard)
        assert not stopped, "whoever may finish gets no signal"
        stop_search(study.folder)
        wait_for(lambda: len(stopped) == 2)
    request = last_request(study)
    with Listening(Study(study.folder)) as later:
        time.sleep(0.1)
        assert not later.heard and len(stopped) == 2
    # A worker that its crew started before the request, or in place of one that was killed, hears it at once.
    assert work(study.folder, "0", known=NEVER) == ALL_STOPPED
    assert not list((study.folder / "trials").iterdir())
    assert request != NEVER and Crew(study, 1, None, Local()).known == request  # type: ignore[arg-type]


def test_a_storage_that_is_away_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LISTEN_SECONDS", 0.01)
    asked: list[int] = []

    def away(study: Study) -> dict[str, str]:
        asked.append(1)
        if len(asked) > 2:  # two looks are to begin with
            raise OSError("away")
        return {}

    monkeypatch.setattr(stopping, "_request", away)
    with Listening(make(tmp_path)) as listening:
        wait_for(lambda: len(asked) > 5)
        assert not listening.heard


def test_stopping_what_does_not_run(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 2})
    code, out, _ = run_cli("search", "stop", str(study.folder))
    assert (code, out) == (0, "small is not running: no worker holds a trial of it\n")
    claim = take_work(study, "7")
    assert isinstance(claim, Claim)
    code, out, _ = run_cli("search", "stop", str(study.folder), "--no-wait", "--finish")
    assert code == 0 and out.startswith("asked to stop after it: trial 0, worker 7 (") and "stopped;" not in out
    claim.entry.let_go()
    tried(study, 2)
    before = last_request(study)
    code, out, _ = run_cli("search", "stop", str(study.folder))
    assert (code, out) == (0, "small is over: 2 trials are trained, and nothing is running\n")
    assert last_request(study) == before
    code, _, err = run_cli("search", "stop", str(tmp_path / "none"))
    assert code == 2 and "there is no study" in err


def test_what_cannot_go_on_is_said(tmp_path: Path) -> None:
    study = tried(make(tmp_path, budget={"trials": 2}), 2)
    with pytest.raises(UserError, match=r"--trials 1: .* has a budget of 2 trials, which may only grow; expected at"):
        resume_search(study.folder, trials=1)
    code, out, _ = run_cli("search", "resume", str(study.folder))
    assert code == 0 and "2 of 2 trials trained" in out  # over: nothing is done
    write_about(study.folder, {**study.about, "ready": False})
    with pytest.raises(UserError, match="was cut off while it was made, and has no trials yet: miniwin search run"):
        resume_search(study.folder)
