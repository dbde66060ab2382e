"""`kill -9` of a running search at random moments: the same command completes it, losing and repeating nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

from forked import Command, kill
from killing import at_work, kill_and_complete, kill_worker, wait_for, weights
from search_helpers import write_search

from miniwin.data import prepare
from miniwin.language_model import LanguageModel
from miniwin.runs import read_metrics
from miniwin.search import read_study
from miniwin.search.history import history
from miniwin.search.leases import Lease, live, read_lease
from miniwin.search.rungs import loss
from miniwin.search.study import Study
from miniwin.search.study_data import TrialRecord
from miniwin.tokenizer import load_tokenizer
from miniwin.training.launch import train


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


def test_a_confirmation_survives_kill_9(tmp_path: Path) -> None:
    """Workers and the search itself killed while the best are trained anew: nothing is trained twice or otherwise."""
    spec = write_search(
        tmp_path,
        train={
            "tokens": 4_096,
            "checkpoint_seconds": 0.05,  # 32 steps
            "data": {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2},
        },
        confirm={"top": 1, "seeds": 2},
        budget={"trials": 1},
    )
    study = tmp_path / "study"
    draw = random.Random(22)
    command = ["search", "run", str(spec), "--out", str(study), "--workers", "1", "--tracking", "off"]

    def confirming() -> list[Lease]:
        return [
            lease for path in (study / "leases").glob("confirm-*.json") if (lease := live(read_lease(path))) is not None
        ]

    kill_and_complete(command, study, confirming, 2, 0.2, draw)

    data = read_study(study)
    assert data.finished and data.confirmation is not None and data.confirmation.result is not None
    trainings = data.confirmation.trainings
    assert len(trainings) == 4 == len(list((study / "confirm").iterdir()))
    assert not list((study / "leases").iterdir()) and not list(study.rglob("*.tmp"))
    assert sum(one.outcome.attempts - 1 for one in trainings if one.outcome) >= 1
    for number, one in enumerate(trainings):
        assert one.state == "complete"
        assert [line["step"] for line in read_metrics(one.folder / "run")] == list(range(1, 33))
        straight = train(
            one.candidate.model, one.candidate.train, out=tmp_path / str(number), base=tmp_path, progress=False,
            tracking="off",
        )  # fmt: skip
        assert weights(straight.folder) == weights(one.folder / "run")


def test_a_halving_on_two_objectives_survives_kill_9(tmp_path: Path) -> None:
    """Trials that wait, are promoted and go on elsewhere, killed at any moment: what each rung says stays the same."""
    spec = write_search(
        tmp_path,
        train={"tokens": 8_192, "checkpoint_seconds": 0.05},  # 64 steps
        objectives=["minimize loss@64", "minimize cache_bytes@4096"],
        pruner={"type": "halving", "reduction": 2},
        budget={"trials": 5},
        baseline=None,
    )
    study = tmp_path / "study"
    draw = random.Random(21)
    command = ["search", "run", str(spec), "--out", str(study), "--workers", "2", "--tracking", "off"]
    kill_and_complete(command, study, lambda: at_work(study), 4, 0.4, draw)

    data = read_study(study)
    assert data.finished and len(data.trained) == 5 and data.completed and data.front
    assert len({trial.hash for trial in data.trained}) == 5 == len(list((study / "trials").iterdir()))
    assert not list((study / "leases").iterdir()) and not list(study.rglob("*.tmp"))
    known = {one.number: one for one in history(Study(study))}
    corpus = prepare(data.train.data, load_tokenizer(data.train.tokenizer, tmp_path), tmp_path)
    for trial in data.trained:
        assert trial.run_folder is not None and trial.spec is not None and trial.train is not None
        steps = trial.tokens // data.train.tokens_per_step
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, steps + 1))
        measured: list[float] = []

        def at_rung(tokens: int, model: LanguageModel, measured: list[float] = measured) -> None:
            measured.append(loss(model, corpus, 64, 128))

        reached = [rung["tokens"] for rung in trial.rungs]
        folder = tmp_path / f"straight-{trial.number}"
        train(
            trial.spec, trial.train, out=folder, base=tmp_path, progress=False, tracking="off",
            on_eval=at_rung, eval_at=reached, stop_after_tokens=None if trial.state == "complete" else trial.tokens,
        )  # fmt: skip
        assert measured == [rung["values"]["loss@64"] for rung in trial.rungs]
        rows = [(value, float(trial.spec.cache_bytes(4096))) for value in measured]
        assert list(known[trial.number].rungs[: len(rows)]) == rows, "Optuna knows the same"
        if trial.state == "complete":
            assert weights(folder) == weights(trial.run_folder)
