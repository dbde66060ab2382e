"""`warm_start`: what other searches found, and known architectures, are proposed first. Nothing here trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from search_helpers import make, write_search

from miniwin.runs import read_run
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.history import history
from miniwin.search.records import collect
from miniwin.search.space import check_search
from miniwin.search.spec_errors import placed
from miniwin.search.study import Study
from miniwin.search.warming import FROM, check_sources, warm_start
from miniwin.search.worker import DONE, work
from miniwin.specs import UserError, load_search_spec

TEXT = "0" * 64  # the fingerprint of what would be trained on


def spend(study: Study) -> list[dict[str, Any]]:
    """Do all the work there is, without training: the best is the last. Returns the values of the trained trials."""
    while isinstance(claim := take_work(study, "0"), Claim):
        claim.outcome.values = {objective.name: -float(claim.number or 0) for objective in study.spec.parsed_objectives}
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return [trial.params for trial in collect(study).trained]


def of_shipped(folder: Path, *warm: str, **changes: Any) -> Study:
    """A study of the shipped search period-window-ratio, with other variables."""
    search = write_search(folder, base="miniwin-1m", baseline=None, constraints=[], warm_start=list(warm), **changes)
    return create_study(load_search_spec(search), folder, out=folder / "warm")


def test_the_best_trials_of_another_study_come_first(tmp_path: Path) -> None:
    old = make(tmp_path, out="old", budget={"trials": 6})
    found = spend(old)
    warm = make(tmp_path, out="new", name="new", budget={"trials": 5}, warm_start=str(tmp_path / "old"))
    said = warm_start(warm, TEXT)
    assert said == [f"warm start from {tmp_path / 'old'}: 2 proposals"]
    assert warm_start(warm, TEXT) == []  # once
    assert spend(warm)[:2] == [found[-1], found[-2]]  # the best first, at most half of the budget
    assert warm.optuna.trials[0].user_attrs[FROM] == f"small, trial {collect(old).trained[-1].number}"


def test_what_a_kill_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spend(make(tmp_path, out="old", budget={"trials": 6}))
    warm = make(tmp_path, out="new", name="new", budget={"trials": 5}, warm_start=[str(tmp_path / "old")])
    with monkeypatch.context() as killed:
        killed.setattr(type(warm.optuna), "set_user_attr", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            warm_start(warm, TEXT)
    again = Study(warm.folder)
    assert len(warm_start(again, TEXT)) == 1
    assert [trial.state.name for trial in again.optuna.trials] == ["WAITING"] * 2


def test_what_does_not_fit_is_said_and_left_out(tmp_path: Path) -> None:
    spend(make(tmp_path, out="old", budget={"trials": 6}))
    ratio = {"ratio": {"int": [1, 1]}, "window": {"choice": [4, 8, 16]}, "factor": {"choice": [1, 2]}}
    warm = make(
        tmp_path, out="new", name="new", budget={"trials": 30}, variables=ratio, warm_start=str(tmp_path / "old")
    )
    (said,) = warm_start(warm, TEXT)
    kept = [trial for trial in collect(Study(tmp_path / "old", reading=True)).completed if trial.params["ratio"] == 1]
    assert f"{len(kept)} proposal" in said and "left out: small, trial" in said and "ratio: got " in said
    assert "which is none of its values" in said


def test_trials_that_would_come_out_the_same_are_taken_as_they_are(tmp_path: Path) -> None:
    """Trained once: values, rungs and weights are those of the other study, and cost none of this one's budget."""
    old = make(tmp_path, out="old", budget={"trials": 2}, pruner={"type": "halving", "reduction": 2})
    assert work(old.folder, "0") == DONE
    before = {trial.number: trial for trial in collect(old).completed}
    assert before
    fingerprint = read_run(next(iter(before.values())).run_folder)["data"]["fingerprint"]  # type: ignore[arg-type]
    same = {"pruner": {"type": "halving", "reduction": 2}, "warm_start": [str(old.folder)], "constraints": []}
    warm = make(tmp_path, out="new", name="new", budget={"trials": 1}, **same)
    (said,) = warm_start(warm, fingerprint)
    assert f"{len(before)} trial" in said and "taken as they are, 0 proposals" in said
    after = {trial.hash: trial for trial in collect(Study(warm.folder)).completed}
    for trial in before.values():
        taken = after[trial.hash]
        assert (taken.values, taken.losses, taken.rungs, taken.params) == (
            trial.values,
            trial.losses,
            trial.rungs,
            trial.params,
        )
        assert taken.origin == f"small, trial {trial.number}" and not taken.trained
        weights = [record.run_folder / "model.safetensors" for record in (taken, trial)]  # type: ignore[operator]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    known = [tried.rungs for tried in history(warm)]
    assert known == [tried.rungs for tried in history(old) if tried.state == "complete"]
    assert work(warm.folder, "0") == DONE
    data = collect(Study(warm.folder))
    assert len(data.trained) == 1 and data.finished and not {t.hash for t in data.trained} & set(after)


@pytest.mark.parametrize("change", [{"eval_tokens": 512}, {"seed": 1}, {"train": {"seed": 5}}, {}])
def test_what_could_come_out_otherwise_is_trained_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    old = make(tmp_path, out="old", budget={"trials": 1})
    assert work(old.folder, "0") == DONE
    (trial,) = collect(old).completed
    assert trial.run_folder is not None
    text = read_run(trial.run_folder)["data"]["fingerprint"] if change else TEXT  # without change: on other text
    warm = make(tmp_path, out="new", name="new", budget={"trials": 3}, warm_start=[str(old.folder)], **change)
    assert warm_start(warm, text) == [f"warm start from {old.folder}: 1 proposal"]


def test_an_entry_of_the_zoo_gives_the_trial_that_it_came_from(tmp_path: Path) -> None:
    """miniwin-1m came from a search, with ratio 4, window 16 and factor 2."""
    variables = {"ratio": {"int": [1, 7]}, "window": {"choice": [16, 32]}, "factor": {"choice": [1, 2]}}
    study = of_shipped(tmp_path, "miniwin-1m", variables=variables)
    assert warm_start(study, TEXT) == ["warm start from miniwin-1m: 1 proposal"]
    claim = take_work(study, "0")
    assert isinstance(claim, Claim) and claim.outcome.params == {"ratio": 4, "window": 16, "factor": 2}


def test_an_architecture_is_looked_for_where_there_are_other_variables(tmp_path: Path) -> None:
    variables = {"chosen": {"subset": {"of": "num_layers", "size": [1, 3]}}}
    setting = {"pattern": "place(chosen, G, S)", "last": None}
    study = of_shipped(tmp_path, "miniwin-1m", variables=variables, set=setting)
    assert warm_start(study, TEXT) == ["warm start from miniwin-1m: 1 proposal"]
    claim = take_work(study, "0")
    assert isinstance(claim, Claim) and claim.outcome.params == {"chosen": [4, 7]}  # SSSSGSSG


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("llama-3-8b-tiny", [1, 3], "0 proposals; left out: no assignment of these variables makes its architecture"),
        ("minimind-1m", [1, 8], "0 proposals; left out: no assignment"),
    ],
)
def test_an_architecture_that_no_values_make_is_said(tmp_path: Path, name: str, size: list[int], said: str) -> None:
    variables = {"chosen": {"subset": {"of": "num_layers", "size": size}}}
    study = of_shipped(tmp_path, name, variables=variables, set={"pattern": "place(chosen, G, S)", "last": None})
    (line,) = warm_start(study, TEXT)
    assert said in line


def test_a_space_too_large_to_look_through_is_said(tmp_path: Path) -> None:
    variables = {"ratio": {"int": [1, 7]}, "lr": {"float": [1e-3, 1e-2]}}
    setting = {"pattern": "S * ratio + G", "train.optimizer.lr": "lr"}
    study = of_shipped(tmp_path, "minimind-1m", variables=variables, set=setting)
    assert "more than 5,000 assignments to look" in warm_start(study, TEXT)[0]


def test_a_name_that_nothing_has_is_said_at_its_place(tmp_path: Path) -> None:
    path = write_search(tmp_path, baseline=None)
    text = yaml.safe_dump({**yaml.safe_load(path.read_text()), "warm_start": ["miniwin-1m", "miniwin-2m"]})
    path.write_text(text)
    line = text[: text.index("- miniwin-2m")].count("\n") + 1
    with pytest.raises(UserError) as caught, placed(path):
        check_sources(load_search_spec(path))
    assert f"{path}:{line}:3: warm_start.1: there is no study, no entry of the zoo and no shipped model" in str(
        caught.value
    )
    assert "hold the constraints" in check_search(path)  # another machine may have the study
