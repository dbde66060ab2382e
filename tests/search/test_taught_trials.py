"""Searches whose trials learn from a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked import workers_forked
from search_helpers import MODEL, TRAIN, write_search

from miniwin.runs import read_metrics, read_run
from miniwin.search.runner import run_search
from miniwin.specs import UserError, parse_spec
from miniwin.training.launch import train


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_search(tmp_path)
    options = {"base": tmp_path, "progress": False, "tracking": "off", "device": "cpu"}
    train(parse_spec(MODEL, "model"), parse_spec({**TRAIN, "tokens": 256}, "train"), out="teacher", **options)


def test_trials_learn_from_the_teacher_of_the_train_spec(tmp_path: Path) -> None:
    """And share what it says, since they read the same rows."""
    how = {"teacher": "teacher", "cache": "states"}
    search = write_search(tmp_path, {"tokens": 512, "distill": how}, baseline=None, budget={"trials": 2}, rungs=[])
    with workers_forked():
        run_search(search, out=tmp_path / "study", tracking="off", progress=False)
    runs = sorted(tmp_path.glob("study/trials/*/run"))
    assert len(runs) == 2
    for run in runs:
        assert all("distillation_loss" in line for line in read_metrics(run))
        assert read_run(run)["teacher"]["ref"] == str(tmp_path / "teacher")
    assert len(list(tmp_path.glob("states/*/*.safetensors"))) == 4, "of 4 steps, whatever the trial"


def test_a_teacher_that_does_not_fit_is_said_before_there_is_a_study(tmp_path: Path) -> None:
    search = write_search(tmp_path, {"distill": {"teacher": "nowhere"}}, baseline=None)
    with pytest.raises(UserError, match=r"distill\.teacher: nowhere: no such file or folder"):
        run_search(search, out=tmp_path / "study", tracking="off", progress=False)
    assert not (tmp_path / "study").exists()
