"""What a search cost, and what it did not: counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from html_page import Page
from report_helpers import make_study

from miniwin.search.report import render
from miniwin.search.report.cost import costs, saved, section, sentences
from miniwin.search.study_data import StudyData, TrialRecord


def study(folder: Path) -> StudyData:
    """Two trials to the end of 4 M tokens, one pruned at 1 M, one that goes on as another, and what cost nothing."""
    trials = [
        TrialRecord(0, "complete", {}, tokens=4_000_000, seconds=40.0),
        TrialRecord(1, "duplicate", {}, duplicate_of=5),  # goes on as trial 5
        TrialRecord(2, "pruned", {}, tokens=1_000_000, seconds=10.0),
        TrialRecord(3, "duplicate", {}, duplicate_of=0),
        TrialRecord(4, "infeasible", {}),
        TrialRecord(5, "complete", {}, tokens=4_000_000, seconds=40.0),
        TrialRecord(6, "complete", {}, tokens=4_000_000, seconds=40.0, origin="another study, trial 3"),
    ]
    made = make_study(folder, trials=1)
    baseline = TrialRecord(-1, "complete", {}, tokens=4_000_000, seconds=80.0)
    return replace(made, trials=trials, baseline=baseline)


def test_what_was_trained_is_summed_and_what_was_not_is_said(tmp_path: Path) -> None:
    found = study(tmp_path)
    assert [(one.what, one.count, one.tokens, one.seconds) for one in costs(found)] == [
        ("trials trained to the end", 2, 8_000_000, 80.0),
        ("pruned trials", 1, 1_000_000, 10.0),
        ("the baseline", 1, 4_000_000, 80.0),
    ]
    not_paid = saved(found)
    assert (not_paid.spent, not_paid.whole, not_paid.pruning) == (9_000_000, 12_000_000, 3_000_000)
    assert (not_paid.duplicates, not_paid.duplicate_tokens, not_paid.infeasible) == (1, 3_000_000, 1)
    assert sentences(found) == [
        "Pruning saved 3 M of 12 M tokens, 25% of what the trials would have cost to the end.",
        "1 proposal repeated an architecture and cost nothing: as many trials cost 3 M tokens on average, 33% of what "
        "the trials cost.",
        "1 proposal broke a constraint and cost nothing.",
    ]
    page = Page(section(found))
    assert "together 4 13 M 100% 2 min 50 s" in page.words and "pruned trials 1 1 M 8% 10.0 s" in page.words


def test_a_study_that_has_cost_nothing_has_no_such_section(tmp_path: Path) -> None:
    assert section(replace(study(tmp_path), trials=[], baseline=None)) == ""
    assert "What it cost" in render(make_study(tmp_path, trials=12))
