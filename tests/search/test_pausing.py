"""Trials that wait at a rung, and go on: in a study whose values are given, and in one that is trained."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from halving_helpers import TEXT, claimed, end, reach
from search_helpers import make

from miniwin.language_model import LanguageModel
from miniwin.runs import read_metrics
from miniwin.search import claims
from miniwin.search.brackets import bracket_of
from miniwin.search.claims import Claim, NoClaim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.history import history
from miniwin.search.live_table import study_lines
from miniwin.search.records import collect
from miniwin.search.rungs import AtRungs
from miniwin.search.runner import _say_pruned
from miniwin.search.study import Study
from miniwin.search.worker import DONE, work
from miniwin.specs import load_search_spec
from miniwin.training.launch import train
from miniwin.training.loop import TrainingLoop

TWO = ["minimize loss@64", "minimize cache_bytes@4096"]
HALF: dict[str, Any] = {"type": "halving", "reduction": 2}


def drive(study: Study, loss: Callable[[Claim], float]) -> NoClaim:
    """Do all the work there is, without training. loss: of a trial, at all rungs and at the end."""
    while isinstance(claim := take_work(study, "0"), Claim):
        if reach(study, claim, *[loss(claim)] * len(study.rungs)):
            end(study, claim, loss(claim))
    return claim


def number(claim: Claim) -> int:
    assert claim.number is not None
    return claim.number


def states(study: Study) -> dict[int, str]:
    return {trial.number: trial.state for trial in collect(Study(study.folder, reading=True)).trials}


def told(study: Study) -> dict[int, str]:
    return {trial.number: trial.state.name for trial in study.optuna.get_trials(deepcopy=False)}


def test_a_trial_that_is_not_among_the_best_waits_and_goes_on_before_new_ones(tmp_path: Path) -> None:
    study = make(tmp_path, pruner=HALF, budget={"trials": 4}, constraints=[])
    first = claimed(study)
    assert not reach(study, first, 3.0), "one alone is not yet the best of two"
    assert states(study) == {0: "paused"} and told(study) == {0: "RUNNING"}
    second = claimed(study)
    assert number(second) == 1 and not reach(study, second, 4.0)
    again = claimed(study)
    assert number(again) == 0 and again.outcome.rungs == first.outcome.rungs, "the best of two goes on, before a third"
    assert again.outcome.attempts == 2 and again.outcome.deaths == 0
    assert states(study) == {0: "running", 1: "paused"}
    assert not reach(study, again, 2.5), "at the second rung it is alone again"
    assert "paused at rung 2" in "\n".join(study_lines(collect(study)))
    third = claimed(study)
    assert number(third) == 2 and reach(study, third, 2.0), "better than two others: it goes on at once"
    assert reach(study, third, 1.0) and number(claimed(study)) == 3
    assert [one.rungs for one in history(study)][:3] == [((3.0,), (2.5,)), ((4.0,),), ((2.0,), (1.0,))]


def test_a_search_that_is_over_prunes_what_waits_and_leaves_one_complete(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={"type": "halving", "reduction": 3}, budget={"trials": 4}, constraints=[])
    assert drive(study, lambda claim: 5.0 - number(claim)) == NoClaim(over=True)
    data = collect(study)
    assert data.finished and states(study) == {0: "pruned", 1: "pruned", 2: "pruned", 3: "complete"}
    assert told(study) == {0: "PRUNED", 1: "PRUNED", 2: "PRUNED", 3: "COMPLETE"}
    assert data.trials[0].reason == "behind the others at 384 tokens" and data.trials[0].tokens == 384
    assert data.trials[2].reason == "behind the others at 768 tokens", "two got there, of which none is one of three"
    assert len(data.trained) == 4 and take_work(study, "0") == NoClaim(over=True)


def test_mlflow_hears_which_trials_waited_until_the_end(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={"type": "halving", "reduction": 3}, budget={"trials": 4}, constraints=[])
    drive(study, lambda claim: 5.0 - number(claim))
    for trial in collect(study).trials[:3]:
        assert trial.run_folder is not None
        trial.run_folder.mkdir()
        (trial.run_folder / "run.json").write_text(json.dumps({"format": 1, "tracking": {"run_id": str(trial.number)}}))
    said: list[tuple[str, ...]] = []
    _say_pruned(collect(study), cast(Any, SimpleNamespace(set_status=lambda *given: said.append(given))))
    assert [(status, run) for status, _, run in said] == [("pruned", str(n)) for n in range(3)]
    assert said[0][1] == "behind the others at 384 tokens"


def test_a_larger_budget_takes_an_old_trial_further_as_a_new_one(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={"type": "halving", "reduction": 3}, budget={"trials": 4}, constraints=[])
    drive(study, lambda claim: 5.0 - number(claim))
    spec = load_search_spec(study.folder / "search.yaml", ["budget.trials=9"])
    study = create_study(spec, study.folder, out=study.folder)
    hashes = {trial.number: trial.hash for trial in collect(study).trials}
    for _ in range(5):
        assert not reach(study, claimed(study), 9.0)
    # Nine have come to the first rung, so three go on: after 3 and 2 it is 1, which has ended as pruned.
    goes_on = claimed(study)
    new = number(goes_on)
    assert new > 8 and goes_on.candidate.hash == hashes[1] and len(goes_on.outcome.rungs) == 1
    records = {trial.number: trial for trial in collect(study).trials}
    assert records[1].state == "duplicate" and records[1].reason == f"goes on as trial {new}"
    assert records[new].state == "running" and records[new].rungs == goes_on.outcome.rungs
    assert [one.number for one in history(study)] == [0, *range(2, new + 1)], "the old trial is not there twice"
    # Killed before it did anything: an orphan like any other.
    goes_on.entry.let_go()
    assert number(claimed(Study(study.folder))) == new
    goes_on.entry.let_go()
    assert drive(study, lambda claim: 0.5) == NoClaim(over=True)
    data = collect(study)
    assert data.finished and len(data.trained) == 9 and data.best is not None and data.best.number == new
    assert len(list((study.folder / "trials").iterdir())) == 9


def test_where_all_has_been_tried_the_best_that_wait_go_on_one_for_each_trial_that_is_left(tmp_path: Path) -> None:
    study = make(
        tmp_path,
        pruner={"type": "halving", "reduction": 3},
        variables={"ratio": {"int": [1, 3]}, "window": {"choice": [4, 8]}, "factor": {"int": [1, 1]}},
        constraints=[],
        budget={"trials": 8},
    )

    def reached() -> list[int]:
        trials = [trial for trial in collect(study).trials if trial.state in ("complete", "pruned")]
        return [len(trials), *(sum(len(t.rungs) > r or t.state == "complete" for t in trials) for r in (1, 2))]

    losses: dict[str, float] = {}

    def loss(claim: Claim) -> float:
        return losses.setdefault(claim.candidate.hash, float(len(losses)))

    assert drive(study, loss) == NoClaim(over=True)
    data = collect(study)
    assert data.exhausted and data.finished and len(data.trained) == 6 and data.assignments == 6
    # Of 6, 2 go on from the first rung, and of these none from the second; two trials are left of the budget.
    assert reached() == [6, 4, 2] and [trial.number for trial in data.completed] == [0, 1]
    spec = load_search_spec(study.folder / "search.yaml", ["budget.trials=9"])
    study = create_study(spec, study.folder, out=study.folder)
    assert not collect(study).finished, "a trial more of the budget lets one more go on"
    assert drive(study, loss) == NoClaim(over=True)
    assert reached() == [6, 5, 3] and collect(study).finished


def test_a_kill_between_any_two_writes_leaves_what_the_next_worker_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, pruner=HALF, budget={"trials": 3}, constraints=[])
    claim = claimed(study)
    # The rung is in trial.json and in Optuna; the worker dies before it says that the trial waits.
    with monkeypatch.context() as patch:
        patch.setattr("miniwin.search.telling.PAUSED", "lost")
        assert not reach(study, claim, 3.0)
    assert states(study) == {0: "running"}
    second = claimed(Study(study.folder))
    assert number(second) == 1 and states(study)[0] == "paused", "told by the next worker, which takes other work"
    assert not reach(study, second, 4.0)
    # It is promoted, and the worker dies before it has a lease: the trial is an orphan, and may pass the rung.
    with monkeypatch.context() as patch:
        patch.setattr(claims, "hold", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            take_work(study, "0")
    third = claimed(study)
    assert number(third) == 0 and reach(study, third), "the rung is not asked twice"
    # It dies there: what it may pass is known, although others have got better in the meantime.
    third.entry.let_go()
    again = claimed(study)
    assert (
        number(again) == 0
        and reach(study, again, 2.0) is False
        and again.outcome.rungs[1]["values"] == {"loss@64": 2.0}
    )


def test_a_rung_that_is_in_trial_json_alone_reaches_optuna(tmp_path: Path) -> None:
    study = make(tmp_path, pruner=HALF, constraints=[])
    claim = claimed(study)
    claim.outcome.rungs = [{"tokens": study.rungs[0], "values": {"loss@64": 3.0}}]
    claim.outcome.write(claim.folder)  # killed before Optuna knows
    claim.entry.let_go()
    again = claimed(study)
    assert not reach(study, again) and history(study)[0].rungs == ((3.0,),)


def test_what_is_not_a_number_ends_at_once_and_counts_as_the_worst(tmp_path: Path) -> None:
    study = make(tmp_path, pruner=HALF, objectives=TWO, budget={"trials": 2}, constraints=[])
    claim = claimed(study)
    at_rungs = AtRungs(study, claim, TEXT)
    at_rungs._measure = lambda model: {"loss@64": math.nan}  # type: ignore[method-assign]
    assert at_rungs(study.rungs[0], cast(Any, None)) is False
    (row,) = history(study)[0].rungs
    assert math.isnan(row[0]) and row[1] == claim.candidate.model.cache_bytes(4096)
    # A trial that diverges on the way to a rung is the worst there as well.
    other = claimed(study)
    AtRungs(study, other, TEXT).give_up()
    assert [math.isnan(value) for value in history(study)[1].rungs[0]] == [True, True]


def test_a_trial_that_diverges_is_the_worst_at_the_first_rung_of_its_bracket(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={**HALF, "brackets": 2}, budget={"trials": 4}, constraints=[])
    assert study.rule is not None and len(study.rungs) == 2
    while bracket_of((claim := claimed(study)).number or 0, study.rule) != 1:
        pass
    AtRungs(study, claim, TEXT).give_up()
    assert [[math.isnan(value) for value in row] for row in history(study)[-1].rungs] == [[True], [True]]


def test_a_baseline_is_measured_at_the_rungs_and_never_waits(tmp_path: Path) -> None:
    from search_helpers import write_search

    study = create_study(load_search_spec(write_search(tmp_path, pruner=HALF)), tmp_path, out=tmp_path / "study")
    claim = claimed(study)
    assert claim.number is None and reach(study, claim, 9.0, 9.0) and len(claim.outcome.rungs) == 2


def test_failed_trials_do_not_end_the_waiting(tmp_path: Path) -> None:
    study = make(tmp_path, pruner=HALF, budget={"trials": 4}, constraints=[])
    assert not reach(study, claimed(study), 1.0)
    for _ in range(3):
        claim = claimed(study)
        claim.outcome.end("failed", "KeyError: 'x'")
        finish(study, claim)
        claim.entry.let_go()
    given_up = take_work(study, "0")
    assert isinstance(given_up, NoClaim) and given_up.reason and states(study)[0] == "paused"


# -- trained


def test_a_trial_that_waited_is_what_it_would_have_been_and_costs_only_the_tokens_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, pruner=HALF, objectives=TWO, budget={"trials": 6})
    steps: list[str] = []
    advance = TrainingLoop._advance

    def counted(loop: TrainingLoop) -> str | None:
        steps.append(str(loop.folder))
        return advance(loop)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_advance", counted)
        assert work(study.folder, "0") == DONE
    data = collect(study)
    tokens = data.train.tokens_per_step
    assert data.finished and len(data.trained) == 6 and {t.state for t in data.trained} == {"complete", "pruned"}
    for trial in data.trained:
        assert trial.run_folder is not None
        assert steps.count(str(trial.run_folder)) * tokens == trial.tokens, "no token twice"
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, trial.tokens // tokens + 1))
    assert all(trial.tokens < data.train.tokens for trial in data.trained if trial.state == "pruned")
    waited = [trial for trial in data.completed if trial.attempts > 1]
    assert waited, "a trial has waited, and went on"
    trial = waited[0]
    assert trial.spec is not None and trial.train is not None and trial.run_folder is not None
    straight = train(trial.spec, trial.train, out=tmp_path / "straight", base=tmp_path, progress=False, tracking="off")
    assert (straight.folder / "model.safetensors").read_bytes() == (trial.run_folder / "model.safetensors").read_bytes()
    lines = [
        [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in read_metrics(folder)]
        for folder in (straight.folder, trial.run_folder)
    ]
    assert lines[0] == lines[1]


def test_a_trial_without_memory_or_time_is_pruned_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocations fail as they do on a machine: torch is asked for more than there is."""
    huge = make(tmp_path, out="huge", pruner=HALF, budget={"trials": 3})
    advance = TrainingLoop._advance

    def too_much(loop: TrainingLoop) -> str | None:
        if loop.step == 1 and loop.model.spec.layout.startswith("SSSG"):
            torch.empty(2**60)
        return advance(loop)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_advance", too_much)
        assert work(huge.folder, "0") == DONE
    data = collect(huge)
    without = [trial for trial in data.trials if trial.layout.startswith("SSSG")]
    assert data.finished and without and len(data.trained) == 3
    assert all(str(trial.reason).startswith("not enough memory: ") for trial in without)
    assert {trial.state for trial in without} == {"pruned"}
    assert all(math.isnan(one.rungs[0][0]) for one in history(huge) if one.number in {t.number for t in without})

    slow = make(tmp_path, out="slow", budget={"trials": 2, "seconds_per_trial": 1e-6})
    assert work(slow.folder, "0") == DONE
    assert {trial.state for trial in collect(slow).trained} == {"pruned"}
    for trial in collect(slow).trained:
        assert trial.reason is not None and trial.reason.startswith("too slow: ") and trial.tokens == 11 * 128
    quick = make(tmp_path, out="quick", budget={"trials": 1, "seconds_per_trial": 1e6})
    assert work(quick.folder, "0") == DONE and len(collect(quick).completed) == 1


def test_a_request_to_stop_that_comes_while_a_trial_is_paused_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, pruner=HALF)
    measure = AtRungs._measure

    def asked_to_stop(at_rungs: AtRungs, model: LanguageModel) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        return measure(at_rungs, model)

    with monkeypatch.context() as patch:
        patch.setattr(AtRungs, "_measure", asked_to_stop)
        with pytest.raises(KeyboardInterrupt):
            work(study.folder, "0")
    assert states(study) == {0: "paused"} and not list((study.folder / "leases").iterdir())


def test_where_only_old_architectures_are_found_those_that_wait_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "FREE_FACTOR", 0)
    monkeypatch.setattr(claims, "FREE_LEAST", 5)
    study = make(
        tmp_path,
        pruner={"type": "halving", "reduction": 9},
        variables={"ratio": {"int": [1, 1000]}, "window": {"choice": [4, 8]}},
        set={"blocks.S.attention.window": "window if ratio > 0 else 16"},  # two architectures
        constraints=[],
        budget={"trials": 20},
    )
    over = drive(study, lambda claim: 5.0 - number(claim))
    assert over.over and over.reason is not None and "5 repeated an architecture" in over.reason
    assert sorted(states(study).values()) == ["complete"] * 2 + ["duplicate"] * 5


def test_a_trial_that_is_tried_again_stays_in_its_bracket(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={"type": "hyperband", "reduction": 2}, budget={"trials": 8}, constraints=[])
    held = [claimed(study) for _ in range(3)]
    assert [one.bracket for one in history(study)] == [0, 1, 2]
    for again in (3, 4):
        held[-2].outcome.end("failed", "no luck")
        finish(study, held[-2])
        held[-2].entry.let_go()
        assert claims.retry_failed(study) == 1
        held[-2] = claimed(study)
        assert {one.number: one.bracket for one in history(study)} == {0: 0, 2: 2, again: 1}
