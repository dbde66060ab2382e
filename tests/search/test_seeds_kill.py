"""`kill -9` of trials of several trainings at random moments: the same command completes them."""

from __future__ import annotations

import random
from pathlib import Path

from killing import at_work, kill_and_complete, weights
from search_helpers import write_search

from miniwin.runs import read_metrics
from miniwin.search import read_study
from miniwin.training.launch import train


def test_seeds_and_a_sweep_of_rates_survive_kill_9(tmp_path: Path) -> None:
    """Workers killed at any of the trainings of a trial: each is what it would have been, and none is trained twice."""
    spec = write_search(
        tmp_path,
        train={"tokens": 4_096, "checkpoint_seconds": 0.05},  # 32 steps
        seeds=2,
        learning_rate={"tuned": [0.003, 0.01], "share": 0.5},
        pruner={"type": "halving", "reduction": 2},
        budget={"trials": 2},
        baseline=None,
    )
    study = tmp_path / "study"
    command = ["search", "run", str(spec), "--out", str(study), "--workers", "2", "--tracking", "off"]
    kill_and_complete(command, study, lambda: at_work(study), 3, 0.4, random.Random(23))

    data = read_study(study)
    assert data.finished and len(data.trained) == 2 == len(list((study / "trials").iterdir())) and data.completed
    assert not list((study / "leases").iterdir()) and not list(study.rglob("*.tmp"))
    trial = data.completed[0]
    assert trial.spec is not None and trial.train is not None and trial.run_folder is not None
    assert [one.folder for one in trial.trainings] == ["rates/0.003", "rates/0.01", "run", "seeds/1"]
    assert trial.tokens == 2 * 2_048 + 2 * 4_096 and sum(one.attempts - 1 for one in data.trained) >= 2
    for one in trial.trainings:
        folder, steps = trial.run_folder.parent / one.folder, one.tokens // data.train.tokens_per_step
        assert [line["step"] for line in read_metrics(folder)] == list(range(1, steps + 1))
        straight = train(
            trial.spec, one.spec(data.spec, trial.train), out=tmp_path / one.folder.replace("/", "-"), base=tmp_path,
            progress=False, tracking="off",
        )  # fmt: skip
        assert weights(straight.folder) == weights(folder)
