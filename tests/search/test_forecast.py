"""How much of a search is left: counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_helpers import make_study

from miniwin.search.forecast import tokens_left
from miniwin.search.study_data import StudyData, TrialRecord


def study(folder: Path, *trials: TrialRecord, budget: int = 10) -> StudyData:
    """Of a budget of trials with 4 M tokens each, and a trained baseline."""
    made = make_study(folder, trials=1)
    spec = made.spec.model_copy(update={"budget": made.spec.budget.model_copy(update={"trials": budget})})
    return replace(made, spec=spec, trials=list(trials))


def test_a_trial_to_come_costs_what_those_before_did(tmp_path: Path) -> None:
    whole = study(tmp_path)
    assert tokens_left(whole, lambda trial: 0) == 10 * 4e6, "nothing is known yet"
    known = [
        TrialRecord(0, "complete", {}, tokens=4_000_000),
        TrialRecord(1, "pruned", {}, tokens=500_000),
        TrialRecord(2, "paused", {}, tokens=1_500_000),
        TrialRecord(3, "infeasible", {}),
    ]
    assert tokens_left(study(tmp_path, *known), lambda trial: 0) == 7 * 2e6
    running = [TrialRecord(4, "running", {}), TrialRecord(5, "running", {})]
    found = study(tmp_path, *known, *running)
    assert tokens_left(found, lambda trial: 3_000_000 if trial.number == 4 else 500_000) == 5 * 2e6 + 1.5e6
    assert found.baseline is not None
    begun = replace(found, baseline=replace(found.baseline, state="running", tokens=0))
    assert tokens_left(begun, lambda trial: 1_000_000) == 5 * 2e6 + 2 * 1e6 + 3e6
    assert tokens_left(study(tmp_path, *known, budget=2), lambda trial: 0) == 0.0
