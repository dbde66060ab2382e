"""Studies whose variables get wider while they go on. Nothing here trains."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from search_helpers import SEARCH, write_search

from miniwin.search.claims import Claim, NoClaim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.history import history
from miniwin.search.records import collect
from miniwin.search.samplers.proposing import Proposer
from miniwin.search.study import Study
from miniwin.specs import UserError, load_search_spec

NARROW = {"ratio": {"int": [1, 2]}, "window": {"choice": [4, 8]}, "factor": {"choice": [1, 2]}}
WIDE = {"ratio": {"int": [1, 3]}, "window": {"choice": [4, 8, 16]}, "factor": {"choice": [1, 2]}}
STORAGES = ["journal", "sqlite"]


def make(folder: Path, variables: dict[str, Any], trials: int, storage: str = "journal") -> Study:
    search = write_search(folder, variables=variables, budget={"trials": trials}, baseline=None, constraints=[])
    url = f"sqlite:///{folder / 'study.db'}" if storage == "sqlite" else None
    return create_study(load_search_spec(search), folder, out=folder / "study", storage=url)


def spend(study: Study) -> None:
    """Do all the work there is, without training."""
    while isinstance(claim := take_work(study, "0"), Claim):
        claim.outcome.values = {objective.name: float(claim.number or 0) for objective in study.spec.parsed_objectives}
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()


@pytest.mark.parametrize("storage", STORAGES)
def test_a_study_goes_on_with_more_choices(tmp_path: Path, storage: str) -> None:
    study = make(tmp_path, NARROW, 50, storage)
    spend(study)
    before = collect(Study(study.folder, reading=True))
    assert before.exhausted and before.assignments == 8
    old = {trial.number: trial.params for trial in before.trials}
    grown = make(tmp_path, WIDE, 50, storage)
    assert not collect(Study(study.folder, reading=True)).exhausted
    spend(grown)
    after = collect(Study(study.folder, reading=True))
    assert after.exhausted and after.assignments == 18
    assert {trial.number: trial.params for trial in after.trials[: len(old)]} == old
    tried = {(t.params["ratio"], t.params["window"], t.params["factor"]) for t in after.trials}
    assert len(tried) == 18
    longer = {**WIDE, "window": {"choice": [4, 8, 16, 2]}}  # a second time
    spend(make(tmp_path, longer, 50, storage))
    assert {trial.params["window"] for trial in collect(Study(study.folder, reading=True)).trials} == {2, 4, 8, 16}


def test_a_worker_takes_up_what_has_grown(tmp_path: Path) -> None:
    """It was started before, and goes on with the wider space, and with a trial that another worker began."""
    worker = make(tmp_path, NARROW, 3)
    first = take_work(worker, "0")
    assert isinstance(first, Claim)
    make(tmp_path, WIDE, 40)
    second = take_work(worker, "0")
    assert isinstance(second, Claim) and worker.spec.budget.trials == 40
    assert "window+3" in worker.optuna.trials[1].params and "window" in worker.optuna.trials[0].params
    for claim in (first, second):  # both workers die; their trials go on under their own numbers
        claim.entry.let_go()
    hashes = {claim.number: claim.candidate.hash for claim in (first, second)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns where a trial is asked for other ranges than it has
        taken = [take_work(Study(worker.folder), "1") for _ in hashes]
    assert {claim.number: claim.candidate.hash for claim in taken if isinstance(claim, Claim)} == hashes


def test_a_sampler_knows_the_trials_from_before(tmp_path: Path) -> None:
    study = make(tmp_path, NARROW, 5)
    spend(study)
    grown = make(tmp_path, WIDE, 10)
    told = Proposer(grown.space).past(history(grown)).trials
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 5
    assert all(trial.params["window+3"] in (4, 8) for trial in told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": {"choice": [4]}}, "search.variables.window.choice"),
        ({"window": {"choice": [4, 16, 8]}}, "search.variables.window.choice"),
        ({"window": {"choice": [4, 8.5]}}, "search.variables.window.choice"),
        ({"ratio": {"int": [2, 3]}}, "search.variables.ratio.int"),
        ({"ratio": {"int": [0, 2], "step": 2}}, "search.variables.ratio"),
        ({"ratio": {"int": [1, 9], "log": True}}, "search.variables.ratio"),
        ({"ratio": {"choice": [1, 2]}}, "search.variables.ratio"),
        ({"factor": {"choice": [1, 2, 4], "when": {"window": 4}}}, "search.variables.factor"),
    ],
)
def test_what_takes_values_away_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    study = make(tmp_path, NARROW, 3)
    spend(study)
    kept = {path: path.read_bytes() for path in study.folder.glob("*.*")}
    with pytest.raises(UserError, match=rf"another search \({said}.*choices \(at their end\) and ranges"):
        make(tmp_path, {**NARROW, **change}, 3)
    assert {path: path.read_bytes() for path in study.folder.glob("*.*")} == kept


def test_a_kill_between_the_two_files_leaves_a_study_that_grows_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, NARROW, 3)
    spend(study)
    copy = tmp_path / "copy"
    shutil.copy(study.folder / "search.yaml", copy)
    make(tmp_path, WIDE, 6)
    shutil.copy(copy, study.folder / "search.yaml")  # as if the spec had not been written any more
    spend(Study(study.folder))
    grown = make(tmp_path, WIDE, 6)
    spend(grown)
    assert len(collect(grown).trained) == 6 and grown.about["choices"] == {"window": 2}


def test_damage_is_said(tmp_path: Path) -> None:
    study = make(tmp_path, NARROW, 3)
    study.about["choices"] = {"window": "two"}
    study.write_about()
    with pytest.raises(UserError, match=r"study.json: choices is not what `miniwin search` wrote"):
        Study(study.folder)


assert set(SEARCH["variables"]) == set(NARROW)


def test_a_study_that_gave_up_goes_on_with_wider_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniwin.search.claims.FREE_FACTOR", 0)
    monkeypatch.setattr("miniwin.search.claims.FREE_LEAST", 3)

    def taken(most: int) -> Claim | NoClaim:
        changes: dict[str, Any] = {
            "variables": {"ratio": {"int": [1, 3]}, "window": {"choice": [4, 8]}, "factor": {"int": [1, most]}},
            "constraints": ["factor >= 1001"],
        }
        search = write_search(tmp_path, budget={"trials": 6}, baseline=None, **changes)
        return take_work(create_study(load_search_spec(search), tmp_path, out=tmp_path / "study"), "0")

    end = taken(1000)
    assert isinstance(end, NoClaim) and end.reason is not None and "3 assignments gave no architecture" in end.reason
    assert isinstance(taken(1000), NoClaim), "the same search gives up again"
    assert isinstance(taken(100_000), Claim)
