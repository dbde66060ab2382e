"""A search whose trials are trained on examples of a task: nothing in it needs text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from search_helpers import write_search
from tiny import run_cli

from miniwin.search import promote, read_study
from miniwin.search.creation import create_study
from miniwin.search.report.study_page import write_report
from miniwin.search.worker import DONE, work
from miniwin.specs import load_search_spec
from miniwin.zoo import verify

EXAMPLES = {
    "data": {"source": "examples", "task": {"type": "recall", "num_pairs": 2, "num_queries": 2}},
    "seq_len": [32, 64],
}
WANTED: dict[str, Any] = {"objectives": ["maximize recall@160"], "report_lengths": None}

THREE_TIMES = {**WANTED, "objectives": ["maximize recall@3x"]}


def test_a_search_on_a_task_runs_without_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    asked = {"budget": {"trials": 2}, "pruner": {"type": "median"}, "confirm": {"top": 1, "seeds": 2}}
    file = write_search(tmp_path, EXAMPLES, **THREE_TIMES, **asked)
    (tmp_path / "text.txt").unlink()
    study = create_study(load_search_spec(file), tmp_path, out=tmp_path / "study")
    assert work(study.folder, "0") == DONE
    data = read_study(study.folder)
    assert data.finished and len(data.completed) == 2 and not (tmp_path / "cache" / "data").exists()
    for trial in [*data.completed, data.baseline]:
        assert trial is not None and trial.losses == {} and set(trial.values) == {"recall@3x"}
        assert [set(rung["values"]) for rung in trial.rungs] == [{"recall@3x"}] * 2
    assert data.confirmation is not None
    result = data.confirmation.result
    assert result is not None
    (measured,) = result.comparisons[0].measures  # on the test split of the task, which is drawn
    assert (measured.name, measured.of, measured.draws) == ("recall@3x", "examples", 64) and result.tokens == 0
    assert measured.low is not None and measured.low <= 0 <= (measured.high or 0)
    page = write_report(study.folder).read_text(encoding="utf-8")
    assert "Confirmed on unseen text" in page and "2 seeds, 64 examples" in page
    assert "recall at 3x (192 tokens)" in page and "of length 32 and 64" in page
    assert run_cli("search", "status", str(study.folder), "--all")[0] == 0
    entry = promote(study.folder, name="asked", zoo=tmp_path / "zoo", progress=False, tracking="off")
    assert entry.metrics == {} and entry.suite is not None and verify(entry) == []
    rows = [row for row in entry.suite.rows if row.unit == "share"]
    assert [row.key for row in rows] == [f"recall@{length}" for length in (64, 256, 1024, 4096)]
    assert all(row.n == 64 and row.setting["split"] == "test" for row in rows)
    assert rows[0].setting["task"]["num_pairs"] == 2, "the task as it was trained on"
    card = (entry.folder / "README.md").read_text(encoding="utf-8")
    assert "| Training length | 32, 64 |" in card and "| Data | examples of recall |" in card
    assert "## What it answers\n\n**recall** (num_pairs 2, num_queries 2, key_length 2). " in card
    assert "| recall | 4,096 | 64x |" in card and "bits per byte" not in card.lower()
    again = promote(study.folder, name="asked", zoo=tmp_path / "zoo", lengths=[160], progress=False, tracking="off")
    assert again.suite is not None and {row.length for row in again.suite.rows if row.unit == "share"} == {160}


def test_a_search_asks_for_losses_and_costs_at_multiples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    wanted = {"objectives": ["minimize loss@3x", "minimize cache_bytes@16x"], "constraints": ["cache_bytes@2x <= 1e9"]}
    file = write_search(tmp_path, **wanted, budget={"trials": 1}, baseline=None, pruner=None)
    study = create_study(load_search_spec(file), tmp_path, out=tmp_path / "study")
    assert work(study.folder, "0") == DONE
    data = read_study(study.folder)
    (trial,), trained = data.completed, data.train.longest
    assert trial.spec is not None
    assert trial.values == {
        "loss@3x": trial.losses[3 * trained],
        "cache_bytes@16x": trial.spec.cache_bytes(16 * trained),
    }
    page = write_report(study.folder).read_text(encoding="utf-8")
    assert f"cache at 16x ({16 * trained:,} tokens)" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["minimize loss@64"], "report_lengths": None}, "objectives: loss@64 needs text, and source"),
        ({**WANTED, "report_lengths": [64]}, r"report_lengths: got \[64\], lengths to measure the loss of text at"),
    ],
)
def test_what_needs_text_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write_search(tmp_path, EXAMPLES, **changes)
    code, _, said = run_cli("search", "run", str(file), "--out", str(tmp_path / "study"), "--tracking", "off")
    assert code == 2 and message.replace("\\", "") in said
    assert not (tmp_path / "study").exists()
