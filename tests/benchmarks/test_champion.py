"""The zoo's model for tasks: what ships as YAML is what the experiment trains and measures; choosing a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.claims import choosing, results
from benchmarks.claims.__main__ import main
from benchmarks.claims.choosing import Candidate, choose
from benchmarks.claims.experiments import EXPERIMENTS
from benchmarks.claims.training import model_spec, train_spec
from benchmarks.claims.variants import VARIANTS
from miniwin.evaluation.tasks import Recall
from miniwin.files.writing import write_json
from miniwin.specs import SuiteSpec, TrainSpec, load_model_spec, load_spec, load_train_spec, resolve_spec_path
from miniwin.specs.data import tasks_alone

CHAMPION = EXPERIMENTS["champion"]
VARIANT = VARIANTS[CHAMPION.variants[0]]


def test_the_gallery_has_the_champions_architecture() -> None:
    shipped, ours = load_model_spec("miniwin-tasks"), model_spec(VARIANT)
    assert shipped.hash == ours.hash
    assert shipped.model_dump(exclude={"name"}) == ours.model_dump(exclude={"name"})


def test_the_gallery_has_the_champions_training() -> None:
    def plain(spec: TrainSpec) -> dict[str, Any]:
        data = spec.model_dump(mode="json", exclude={"name"})
        for part in data["data"]["parts"]:
            part["name"] = part["name"] or part["data"]["task"]["type"]  # what it is called without a name
        return data

    assert plain(load_train_spec("order-tasks")) == plain(train_spec(CHAMPION, VARIANT, 0))


def test_the_suite_asks_what_the_champion_was_trained_on() -> None:
    suite = load_spec(resolve_spec_path("order-tasks", "suite"), "suite")
    assert isinstance(suite, SuiteSpec)
    assert [one.parsed_task for one in suite.tasks] == list(CHAMPION.tasks)
    assert tasks_alone(load_train_spec("order-tasks").data) == list(CHAMPION.tasks)
    assert suite.split == "test" and suite.lengths == ["1x", "4x", "16x", "64x"]


def test_the_best_seed_is_right_most_often_and_then_surest() -> None:
    def one(seed: int, share: float, nats: float) -> Candidate:
        return Candidate(seed, Path("."), (share, 1.0), (nats, 0.0))

    seeds = [one(0, 0.9, 0.1), one(1, 1.0, 0.3), one(2, 1.0, 0.2)]
    assert max(seeds, key=lambda candidate: candidate.rank).seed == 2


def test_choosing_scores_the_validation_split_of_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def score(model: Any, task: Recall, length: int, *, examples: int, split: str) -> Any:
        asked.append((model, length, examples, split))

        class Score:
            accuracy = 1.0 if "miniwin-tasks-3" in model else 0.5
            nats_per_answer = 0.25

        return Score

    monkeypatch.setattr(choosing, "work_folder", lambda: tmp_path)
    monkeypatch.setattr(choosing, "load", str)
    monkeypatch.setattr(choosing, "score_task", score)
    for seed in range(CHAMPION.seeds):
        folder = tmp_path / "champion" / f"miniwin-tasks-{seed}"
        folder.mkdir(parents=True)
        write_json(folder / "run.json", {"format": 1, "status": "complete" if seed else "running"})
    asking = ["--choose", "--results", str(tmp_path / "results")]
    assert main(asking) == 2
    assert "miniwin-tasks-0: the run is running, not complete; finish it" in capsys.readouterr().err and not asked
    write_json(tmp_path / "champion" / "miniwin-tasks-0" / "run.json", {"format": 1, "status": "complete"})
    assert main(asking) == 0
    assert {wanted[1:] for wanted in asked} == {(2048, 256, "valid")} and len(asked) == 15
    assert f"seed 3: {tmp_path / 'champion' / 'miniwin-tasks-3'}" in capsys.readouterr().out
    assert choose(CHAMPION, examples=8, folder=tmp_path).seed == 3
    kept = results.read("chosen", "champion", 0, tmp_path / "results")
    assert kept is not None and kept["best"] == 3 and [one["seed"] for one in kept["scores"]] == [0, 1, 2, 3, 4]
