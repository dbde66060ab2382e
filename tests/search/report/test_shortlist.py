"""The report of a large study: a part of the trials is drawn and listed, and torch is not needed."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from html_page import Page
from processes import miniwin_without_torch
from search_helpers import write_search

from miniwin.search import StudyData, read_study
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.report import render, shortlist, write_report
from miniwin.specs import load_search_spec

OBJECTIVES = ["minimize loss@64", "maximize recall@64"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 24 trials, nothing of it trained."""
    folder = tmp_path_factory.mktemp("shortlist")
    variables = {"ratio": {"int": [1, 3]}, "window": {"int": [4, 64]}, "factor": {"choice": [1, 2]}}
    changes = {"variables": variables, "constraints": [], "budget": {"trials": 24}, "sampler": {"type": "random"}}
    spec = load_search_spec(write_search(folder, objectives=OBJECTIVES, **changes))
    study, draw = create_study(spec, folder, out=folder / "study"), random.Random(0)
    while isinstance(claim := take_work(study, "0"), Claim):
        claim.outcome.values = {"loss@64": draw.uniform(2, 3), "recall@64": draw.random()}
        claim.outcome.losses = {32: 2.0, 64: claim.outcome.values["loss@64"]}
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return study.folder


@pytest.fixture
def data(searched: Path, monkeypatch: pytest.MonkeyPatch) -> StudyData:
    monkeypatch.setattr(shortlist, "MOST", 10)
    return read_study(searched)


def test_the_front_and_the_best_are_kept_and_the_rest_is_thinned(data: StudyData) -> None:
    kept = shortlist.shortlist(data)
    numbers = [trial.number for trial in kept.trials]
    assert len(numbers) == 10 and numbers == sorted(numbers)
    assert kept.front == data.front and kept.best == data.best and kept.baseline == data.baseline
    others = [trial for trial in data.completed if trial not in data.front]
    best = sorted(others, key=lambda trial: trial.values["loss@64"])[: (10 - len(data.front)) // 2]
    assert {trial.number for trial in best} <= set(numbers)
    assert max(numbers) > 12 > min(numbers), "the rest is drawn from everywhere"
    lost = replace(data, trials=[replace(data.trials[0], values={}), *data.trials[1:]])
    assert len(shortlist.shortlist(lost).trials) == 10


def test_the_page_says_what_it_leaves_out(data: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(render(data))
    rows = [attrs["id"] for attrs in page.all("tr") if str(attrs.get("id", "")).startswith("trial-")]
    assert len(rows) == 10 and f"trial-{data.best.number}" in rows  # type: ignore[union-attr]
    count = len(data.trials)
    assert f"show 10 of {count} trials: the front, the best others" in page.words
    assert re.search(r"Trained 24 of 24 trials", page.words)
    targets = {str(attrs["href"])[1:] for attrs in page.all("a") if str(attrs.get("href", "")).startswith("#trial")}
    assert targets and targets <= set(rows), "no point leads to a row that is not there"
    monkeypatch.setattr(shortlist, "MOST", count)
    whole = Page(render(data))
    assert f"All {count} trials" in whole.words and "an even selection" not in whole.words


def test_a_report_needs_no_torch(searched: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    ((code, _, err),), loaded = miniwin_without_torch(["search", "report", str(searched), "--out", str(path)])
    assert code == 0, err
    assert "numpy" in loaded and not loaded & {"torch", "optuna", "sklearn"}
    with_torch = write_report(searched, tmp_path / "b.html")

    def undated(page: Path) -> str:
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page.read_text())

    assert undated(path) == undated(with_torch) and "Which variable mattered" in path.read_text()
