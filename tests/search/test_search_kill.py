"""`kill -9` of a running search at random moments: the same command completes it, losing and repeating nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from forked import Command, kill
from search_helpers import write_search

from miniwin.runs import read_metrics
from miniwin.search import read_study
from miniwin.search.leases import Lease, live_lease
from miniwin.search.records import TrialRecord
from miniwin.training.launch import train

PATIENCE = 900.0  # seconds; only a hang takes that long, however busy the machine is


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} seconds for {what}"
        time.sleep(0.02)


def at_work(study: Path) -> list[Lease]:
    return [lease for path in sorted((study / "leases").glob("*.json")) if (lease := live_lease(path)) is not None]


def kill_worker(pid: int) -> None:
    with suppress(ProcessLookupError):  # it ended in the meantime, which is a moment as good as any
        os.kill(pid, signal.SIGKILL)


def weights(trial_run: Path) -> bytes:
    return (trial_run / "model.safetensors").read_bytes()


def test_a_search_survives_kill_9_of_its_workers_and_of_itself(tmp_path: Path) -> None:
    spec = write_search(
        tmp_path,
        train={"tokens": 16_384, "checkpoint_seconds": 0.05},  # 128 steps
        pruner={"type": "median", "startup": 3},
        budget={"trials": 4},
    )
    study = tmp_path / "study"
    draw = random.Random(20)

    def search(workers: int = 1) -> Command:
        command = ["search", "run", str(spec), "--out", str(study), "--workers", str(workers), "--tracking", "off"]
        return Command(*command, told=tmp_path / "told.json")

    def worker_of(parent: Command) -> list[Lease]:
        wait_for(lambda: at_work(study) or not parent.running(), "a worker to begin")
        assert parent.running(), parent.ends()
        return at_work(study)

    # Workers killed at random moments of their work; the parent starts others.
    parent = search()
    for _ in range(2):
        victim = worker_of(parent)
        time.sleep(draw.uniform(0, 0.3))
        for lease in victim:
            kill_worker(lease.pid)
        wait_for(lambda victim=victim: not any(lease.alive() for lease in victim), "the killed worker to be gone")

    # The parent killed: its worker notices, and stops by itself.
    worker_of(parent)
    time.sleep(draw.uniform(0, 0.2))
    orphans = at_work(study)
    kill(parent.process)
    wait_for(lambda: not any(lease.alive() for lease in orphans), "the orphaned worker to stop")

    # SIGTERM, or Ctrl-C: everybody stops, with a checkpoint.
    parent = search()
    worker_of(parent)
    time.sleep(draw.uniform(0, 0.2))
    stopped = at_work(study)
    os.kill(parent.process.pid, draw.choice([signal.SIGTERM, signal.SIGINT]))
    code, _, errors = parent.ends()
    assert code == 130, errors
    assert not any(lease.alive() for lease in stopped) and not at_work(study)

    # The same command completes it, here with two workers at once.
    code, _, errors = search(workers=2).ends()
    assert code == 0, errors

    data = read_study(study)
    assert data.finished and data.baseline is not None and data.baseline.state == "complete"
    trained = data.trained
    assert len(trained) == 4 and len({trial.hash for trial in trained}) == 4
    assert {trial.state for trial in data.trials} <= {"complete", "pruned", "infeasible", "duplicate"}
    assert sorted(path.name for path in (study / "trials").iterdir()) == sorted(str(t.hash)[:12] for t in trained)
    assert not list((study / "leases").iterdir())
    assert [trial.number for trial in data.trials] == list(range(len(data.trials)))
    assert not list(study.rglob("*.tmp"))
    for line in (study / "journal.log").read_text().splitlines():
        json.loads(line)

    everything: list[TrialRecord] = [*data.completed, data.baseline]
    for trial in everything:
        assert trial.run_folder is not None and trial.tokens == 16_384
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, 129))
        assert [rung["tokens"] for rung in trial.rungs] == [4096, 8192]
    interrupted = [trial for trial in everything if trial.attempts > 1]
    assert sum(trial.attempts - 1 for trial in everything) >= 2
    # What was killed and went on from its checkpoint is what would have come of it undisturbed.
    again = interrupted[0]
    assert again.spec is not None and again.train is not None and again.run_folder is not None
    straight = train(again.spec, again.train, out=tmp_path / "straight", base=tmp_path, progress=False, tracking="off")
    assert weights(straight.folder) == weights(again.run_folder)
