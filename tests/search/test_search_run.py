"""Running searches: what is trained, what is not, what is written down. Workers run in this process, for speed;
tests/search/test_search_kill.py has the real processes."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from search_helpers import MODEL, SEARCH, write_search

from miniwin.runs import read_evaluations
from miniwin.search import claims, holding, leases, read_study, run_search, study_json
from miniwin.search.claims import Claim, NoClaim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.live_table import free_lines, study_table, summary
from miniwin.search.measure import check_corpus
from miniwin.search.records import collect
from miniwin.search.storage import cut_torn_line
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.worker import DONE, GAVE_UP, work
from miniwin.specs import UserError, load_search_spec


def make(folder: Path, out: str = "study", storage: str | None = None, **changes: Any) -> Study:
    spec = load_search_spec(write_search(folder, **changes))
    return create_study(spec, folder, out=folder / out, storage=storage)


def states(data: StudyData) -> list[str]:
    return [trial.state for trial in data.trials]


def pretend(study: Study, claim: Claim, loss: float = 1.0) -> None:
    """End a claim as if it had been trained."""
    claim.outcome.values = {objective.name: loss for objective in study.spec.parsed_objectives}
    claim.outcome.end("complete")
    finish(study, claim)
    claim.entry.let_go()


def spend(study: Study, loss: Callable[[int], float] = lambda number: 1.0) -> NoClaim:
    """Do all the work there is, without training."""
    while isinstance(claim := take_work(study, "0"), Claim):
        pretend(study, claim, loss(-1 if claim.number is None else claim.number))
    return claim


# -- a whole search, trained


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    study = make(folder)
    assert work(study.folder, "0") == DONE
    return study.folder


def test_a_search_trains_as_many_architectures_as_it_was_asked_to(searched: Path) -> None:
    data = read_study(searched)
    assert data.finished and len(data.trained) == 6
    assert len({trial.hash for trial in data.trained}) == 6
    assert set(states(data)) <= {"complete", "infeasible", "duplicate"}
    assert len(list((searched / "trials").iterdir())) == 6
    assert not list((searched / "leases").iterdir())


def test_everything_about_a_trial_is_written_down(searched: Path) -> None:
    data = read_study(searched)
    for trial in [*data.completed, data.baseline]:
        assert trial is not None and trial.spec is not None and trial.train is not None
        assert set(trial.losses) == {32, 64} and trial.values == {"loss@64": trial.losses[64]}
        assert [rung["tokens"] for rung in trial.rungs] == [384, 768]
        assert all(0 < rung["values"]["loss@64"] < 10 for rung in trial.rungs)
        assert trial.tokens == 1536 and trial.seconds > 0 and trial.attempts == 1 and trial.seed == 0
        assert trial.run_folder is not None and (trial.run_folder / "model.safetensors").exists()
        assert trial.layout == trial.spec.layout and not trial.alive
        assert trial.bits_per_byte[32] == pytest.approx(trial.losses[32] / math.log(2))
    assert data.baseline is not None and data.baseline.layout == "GGGG"
    best = min(data.completed, key=lambda trial: trial.values["loss@64"])
    assert data.best == best and data.front == [best]
    for trial in data.completed:
        assert trial.spec is not None
        window = trial.spec.blocks["S"].attention.window  # what was trained is what the parameters say
        assert window == trial.params["window"]


def test_a_finished_search_is_left_alone_and_a_larger_budget_extends_it(searched: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(searched, tmp_path / "study")
    before = read_study(copy)
    assert run_search(copy / "search.yaml", out=copy, tracking="off", progress=False).trials == before.trials
    study = create_study(load_search_spec(copy / "search.yaml", ["budget.trials=7"]), copy, out=copy)
    assert work(study.folder, "0") == DONE
    after = read_study(copy)
    assert len(after.trained) == 7 and after.trials[: len(before.trials)] == before.trials


def test_status_shows_the_trials(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from miniwin.commands.search import app

    result = CliRunner().invoke(app, ["status", str(searched), "--all"])
    assert result.exit_code == 0, result.output
    assert "small: 6 of 6 trials trained" in result.output
    assert "best: trial " in result.output and "base: baseline, loss@64" in result.output


# -- what costs nothing


def test_broken_constraints_cost_nothing_and_do_not_count(tmp_path: Path) -> None:
    study = make(tmp_path, constraints=["window * factor == 8"], budget={"trials": 4}, baseline=None)
    assert spend(study).over
    data = collect(study)
    assert len(data.trained) == 4
    infeasible = [trial for trial in data.trials if trial.state == "infeasible"]
    assert infeasible and all(trial.constraints["window * factor == 8"] > 0 for trial in infeasible)
    assert all(trial.run_folder is None and trial.reason for trial in infeasible)
    assert all(trial.params["window"] * trial.params["factor"] == 8 for trial in data.trained)


def test_the_same_architecture_is_not_trained_twice(tmp_path: Path) -> None:
    # Seven values of the variable, one pattern.
    study = make(
        tmp_path, variables={"ratio": {"int": [3, 9]}}, set={"pattern": "S * min(ratio, 3) + G"}, constraints=[],
        budget={"trials": 3}, baseline=None,
    )  # fmt: skip
    end = spend(study)
    data = collect(study)
    assert end.over and end.reason is None and data.exhausted and data.finished
    assert len(data.trained) == 1 and len({trial.params["ratio"] for trial in data.trials}) == 7
    copies = [trial for trial in data.trials if trial.state == "duplicate"]
    assert copies and all(trial.duplicate_of == data.trained[0].number for trial in copies)


def test_a_small_space_is_searched_to_its_last_architecture(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 15}, baseline=None)  # of 18 assignments 15 hold the constraint
    assert spend(study).over
    data = collect(study)
    assert len(data.trained) == 15 and len(data.trials) < 100


def test_an_impossible_constraint_in_an_endless_space_ends_the_search(tmp_path: Path) -> None:
    study = make(
        tmp_path, variables={"lr": {"float": [1e-4, 1e-2]}}, set={"train.optimizer.lr": "lr"},
        constraints=["lr < 1e-9"], baseline=None,
    )  # fmt: skip
    end = take_work(study, "0")
    assert isinstance(end, NoClaim) and end.over and end.reason is not None
    assert "200 assignments gave no architecture that holds the constraints" in end.reason
    assert work(study.folder, "0") == GAVE_UP


# -- who works on what


def test_two_workers_never_hold_the_same_trial(tmp_path: Path) -> None:
    one = make(tmp_path, baseline=None)
    two = Study(one.folder)
    first, second = take_work(one, "0"), take_work(two, "1")
    assert isinstance(first, Claim) and isinstance(second, Claim)
    assert (first.number, first.candidate.hash) != (second.number, second.candidate.hash)
    assert [trial.alive for trial in collect(one).trials if trial.state == "running"] == [True, True]


def test_the_budget_counts_what_is_being_trained(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 2}, baseline=None)
    held = [take_work(study, "0"), take_work(study, "1")]
    assert all(isinstance(claim, Claim) for claim in held)
    assert take_work(study, "2") == NoClaim(over=False)
    for claim in held:
        assert isinstance(claim, Claim)
        pretend(study, claim)
    assert take_work(study, "2") == NoClaim(over=True)


def test_an_orphan_is_taken_over_under_its_number(tmp_path: Path) -> None:
    study = make(tmp_path, baseline=None)
    claim = take_work(study, "0")
    assert isinstance(claim, Claim)
    claim.entry.let_go()  # as if its worker had been killed
    again = take_work(Study(study.folder), "1")
    assert isinstance(again, Claim)
    assert (again.number, again.folder, again.outcome.attempts) == (claim.number, claim.folder, 2)


def test_a_trial_whose_worker_died_before_telling_is_told(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 1}, baseline=None)
    claim = take_work(study, "0")
    assert isinstance(claim, Claim)
    claim.outcome.values = {"loss@64": 1.5}
    claim.outcome.end("complete")
    claim.outcome.write(claim.folder)
    claim.entry.let_go()
    assert states(collect(study)) == ["running"]
    assert take_work(study, "1") == NoClaim(over=True)
    assert collect(study).best is not None and study.optuna.best_value == 1.5


def test_a_trial_that_was_cut_off_while_being_asked_for_is_finished(tmp_path: Path) -> None:
    study = make(tmp_path, baseline=None)
    study.optuna.enqueue_trial({"ratio": 1})
    trial = study.optuna.ask()
    trial.suggest_int("ratio", 1, 3)  # killed before the other variables were drawn
    claim = take_work(study, "0")
    assert isinstance(claim, Claim) and claim.number == 0
    assert set(claim.outcome.params) == {"ratio", "window", "factor"}


def test_workers_that_keep_dying_give_a_trial_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "DEATHS", 2)
    study = make(tmp_path, baseline=None)
    for _ in range(3):
        claim = take_work(study, "0")
        assert isinstance(claim, Claim) and claim.number == 0
        claim.entry.let_go()
    following = take_work(study, "0")
    assert isinstance(following, Claim) and following.number != 0
    lost = collect(study).trials[0]
    assert lost.state == "failed" and lost.reason is not None and "killed 3 times without progress" in lost.reason


def test_a_constraint_without_a_value_for_one_assignment_does_not_end_the_search(tmp_path: Path) -> None:
    study = make(tmp_path, constraints=["1 / (factor - 1) <= 10"], baseline=None, budget={"trials": 3})
    assert spend(study) == NoClaim(over=True)
    data = collect(study)
    out = [trial for trial in data.trials if trial.state == "infeasible"]
    assert len(data.trained) == 3 and out
    assert all(trial.params["factor"] == 1 and trial.constraints == {"1 / (factor - 1) <= 10": 1.0} for trial in out)
    assert "divides by zero: 1 / 0" in "\n".join(free_lines(data))


def test_failed_trials_do_not_count_end_the_search_and_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path, budget={"trials": 3}, baseline=None)

    def broken(*arguments: Any) -> None:
        raise RuntimeError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("miniwin.search.measure.run_claim", broken)
        assert work(study.folder, "0") == GAVE_UP
    assert "gave up: 3 trials failed, the last with: RuntimeError: no space left" in capsys.readouterr().err
    assert [state for state in states(collect(study)) if state == "failed"] == ["failed"] * 3
    assert claims.retry_failed(study) == 3 and claims.retry_failed(study) == 0
    assert spend(study).over
    data = collect(study)
    assert len(data.trained) == 3 and len(list((study.folder / "trials").iterdir())) == 3
    assert all(trial.attempts == 2 for trial in data.trained)


def test_a_lease_is_dead_once_its_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = leases.Lease.mine("0")
    assert mine.alive()
    reused = leases.Lease(mine.host, mine.pid, (mine.started or 0) - 1, "0", mine.heartbeat)
    assert not reused.alive()  # the number belongs to another process now
    away = leases.Lease("elsewhere", mine.pid, mine.started, "0", mine.heartbeat)
    assert away.alive()
    monkeypatch.setattr(leases.time, "time", lambda: mine.heartbeat + leases.STALE_SECONDS + 1)
    assert not away.alive()


def test_a_worker_that_lost_its_lease_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    path, mine = tmp_path / "lease.json", leases.Lease.mine("0")
    leases.write_lease(path, mine)
    with leases.Holding(leases.LeaseFile(path), mine) as holding:
        other = leases.Lease("elsewhere", 1, 1, "1", mine.heartbeat)
        # A renewal that was under way may be written after ours: the other worker would write its own again.
        for _ in range(500):
            leases.write_lease(path, other)
            holding._done.wait(0.01)
            if holding.lost:
                break
    assert holding.lost and leases.read_lease(path) == other


# -- pruning and several objectives


def test_the_median_pruner_stops_what_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path, pruner={"type": "median", "startup": 2}, budget={"trials": 4}, baseline=None)
    from miniwin.search import measure, rungs

    true_loss = rungs.loss
    spent: list[int] = []

    def worse_and_worse(model: Any, corpus: Any, length: int, tokens: int) -> float:
        return true_loss(model, corpus, length, tokens) + len(collect(study).trained)

    for module in (measure, rungs):
        monkeypatch.setattr(module, "loss", worse_and_worse)
    assert work(study.folder, "0") == DONE
    data = collect(study)
    trained = data.trained
    assert [trial.state for trial in trained] == ["complete", "complete", "pruned", "pruned"]
    for trial in trained[2:]:
        spent.append(trial.tokens)
        assert trial.reason == "behind the others at 384 tokens" and not trial.values and len(trial.rungs) == 1
    assert spent == [384, 384]
    assert json.loads((trained[2].run_folder / "run.json").read_text())["status"] == "pruned"  # type: ignore[operator]


def test_asha_lets_the_best_half_through(tmp_path: Path) -> None:
    from miniwin.search.samplers import pruner_step

    study = make(tmp_path, pruner={"type": "asha", "reduction": 2}, budget={"trials": 6}, baseline=None)
    decisions = []
    for loss in (5.0, 6.0, 4.0, 7.0):
        claim = take_work(study, "0")
        assert isinstance(claim, Claim) and claim.trial is not None
        claim.trial.report(loss, pruner_step(study.spec, 0))
        decisions.append(claim.trial.should_prune())
    assert decisions == [False, True, False, True]


def test_several_objectives_give_a_front(tmp_path: Path) -> None:
    study = make(tmp_path, objectives=["minimize loss@64", "minimize cache_bytes@4096"], baseline=None)
    loss = {0: 3.0, 1: 1.0, 2: 2.0}
    numbers = iter(range(100))
    while isinstance(claim := take_work(study, "0"), Claim):
        number = next(numbers)
        claim.outcome.values = {"loss@64": loss.get(number, 5.0), "cache_bytes@4096": 100.0 - 10 * (number == 2)}
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    data = collect(study)
    assert len(data.trained) == 6
    assert [trial.values["loss@64"] for trial in data.front] == [1.0, 2.0]
    assert data.best is not None and data.best.values["loss@64"] == 1.0
    assert {trial.values["loss@64"] for trial in data.front} == {t.values[0] for t in study.optuna.best_trials}


def test_a_run_that_diverges_is_a_pruned_trial(tmp_path: Path) -> None:
    # A learning rate that no model survives.
    train = {"optimizer": {"lr": 1e6}, "schedule": {"type": "cosine", "warmup": 0.0}, "clip_grad_norm": None,
             "stop": {"loss_spike": 1.0, "patience": 1}}  # fmt: skip
    study = make(tmp_path, train=train, budget={"trials": 1}, baseline=None, rungs=[])
    assert work(study.folder, "0") == DONE
    (trial,) = collect(study).trained
    assert trial.state == "pruned" and trial.reason is not None and trial.reason.startswith("diverged: ")


# -- refusals, storage, sampling


def test_a_changed_search_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=r"another search \(search.seed: 0 there, 3 now\): only budget.trials, "):
        make(tmp_path, seed=3)
    with pytest.raises(UserError, match=r"train.seq_len: 32 there, 16 now"):
        make(tmp_path, train={"seq_len": 16})
    with pytest.raises(UserError, match=r"search.budget.trials: 6 there, 5 now"):
        make(tmp_path, budget={"trials": 5})
    with pytest.raises(UserError, match=r"keeps its study in a journal file, not in sqlite:///x.db"):
        make(tmp_path, storage="sqlite:///x.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"is a file; expected a folder for the study"):
        make(tmp_path, out="file")
    make(tmp_path, budget={"trials": 9}, workers=5)
    assert read_study(tmp_path / "study").spec.budget.trials == 9


def test_names_of_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path))
    spec = load_search_spec(write_search(tmp_path))
    assert create_study(spec, tmp_path).folder == tmp_path / "searches" / "small"
    assert read_study("small").name == "small"
    with pytest.raises(UserError, match=r"there is no study 'smal': .* studies in .*: small"):
        read_study("smal")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIWIN_HOME", "elsewhere")  # said as a whole: it is a place under where one happens to be
    (tmp_path / "smal.yaml").touch()
    with pytest.raises(
        UserError, match=rf"a study's name \(the `name` in its .* none in {tmp_path}/elsewhere/searches"
    ):
        read_study("smal.yaml")


def test_trials_are_validated_as_their_train_spec_says(tmp_path: Path) -> None:
    """Beside the rungs, which are the search's. What is validated decides nothing: the trials are the same."""
    measure = {"every": 512, "tokens": 100, "keep_best": "minimize loss@32"}
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    hashes = []
    for folder, more in ((plain, {}), (watched, {"eval": measure})):
        folder.mkdir()
        study = make(folder, train=more, baseline=None, budget={"trials": 1})
        assert work(study.folder, "0") == DONE
        (trial,) = collect(study).trials
        assert trial.state == "complete" and trial.run_folder is not None
        hashes.append(trial.hash)
        lines = read_evaluations(trial.run_folder)
        assert [line["step"] for line in lines] == ([4, 8, 12] if more else [])
    assert hashes[0] == hashes[1]
    with pytest.raises(UserError, match=r"eval\.lengths: the validation split has \d+ tokens to predict"):
        run_search(write_search(watched, {"eval": {"every": 512, "lengths": [90_000]}}), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_too_little_text_to_measure_on_is_found_before_training(tmp_path: Path) -> None:
    from miniwin.data import prepare
    from miniwin.tokenizer import load_tokenizer

    study = make(tmp_path, eval_tokens=10**6)
    corpus = prepare(study.train.data, load_tokenizer("byte"), study.train_base)
    with pytest.raises(UserError, match=r"lower eval_tokens or report_lengths"):
        check_corpus(study.spec, study.space.train, corpus)


@pytest.mark.parametrize("changes", [{"constraints": ["window > 100"]}, {"eval_tokens": 10**6}, {}])
def test_a_search_that_cannot_run_makes_no_study(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Which its mended spec, being another one, could not go on with."""
    spec = write_search(tmp_path, **changes)
    if not changes:
        (tmp_path / "text.txt").unlink()
    with pytest.raises(UserError, match=r"none of|lower eval_tokens|text\.txt"):
        run_search(spec, out=tmp_path / "study", storage=f"sqlite:///{tmp_path}/a.db", tracking="off", progress=False)
    assert not (tmp_path / "study").exists() and not (tmp_path / "a.db").exists()


def test_any_optuna_storage_url_works(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = make(tmp_path, storage=url, budget={"trials": 2}, baseline=None)
    assert spend(study).over and len(collect(Study(study.folder)).trained) == 2
    assert not (study.folder / "journal.log").exists()
    with pytest.raises(UserError, match=r"already has a study named 'small', which belongs to another study folder"):
        make(tmp_path, out="other", storage=url)
    with pytest.raises(UserError, match=r"--storage nonsense://me:\*\*\*@x cannot be opened"):
        make(tmp_path, out="third", storage="nonsense://me:secret@x")


def test_a_torn_journal_is_mended(tmp_path: Path) -> None:
    study = make(tmp_path, baseline=None)
    assert isinstance(take_work(study, "0"), Claim)
    journal = study.folder / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker_i')  # killed in the middle of a line
    assert isinstance(take_work(Study(study.folder), "1"), Claim)
    assert journal.read_bytes().startswith(whole) and b"worker_i{" not in journal.read_bytes()
    for text, kept in (
        (b"", b""),
        (b"torn", b""),
        (b"a\nb", b"a\n"),
        (b"x" * 70000 + b"\n" + b"y" * 70000, b"x" * 70000 + b"\n"),
    ):
        journal.write_bytes(text)
        cut_torn_line(journal)
        assert journal.read_bytes() == kept


def test_proposals_follow_from_the_history_not_from_the_worker(tmp_path: Path) -> None:
    def proposals(name: str, restarts: bool) -> list[dict[str, Any]]:
        study = make(tmp_path, out=name, budget={"trials": 6}, baseline=None)
        while isinstance(claim := take_work(study, "0"), Claim):
            pretend(study, claim, claim.candidate.model.layout.count("G") + claim.outcome.params["window"] / 100)
            if restarts:
                study = Study(study.folder)
        return [trial.params for trial in collect(study).trials]

    assert proposals("one", False) == proposals("two", True)


def test_the_specs_of_a_study_do_not_depend_on_the_files_they_came_from(tmp_path: Path) -> None:
    study = make(tmp_path)
    for name in ("model", "base", "search"):
        (tmp_path / f"{name}.yaml").unlink()
    again = Study(study.folder)
    assert again.base.name == MODEL["name"] and again.spec.set == SEARCH["set"]
    assert load_search_spec(study.folder / "search.yaml").base == "model.yaml"
    assert study_json.read_about(study.folder)["train_base"] == str(tmp_path)


def test_a_failed_baseline_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path, budget={"trials": 1})

    def broken(study: Study, claim: Claim, *rest: Any) -> None:
        if claim.number is None:
            raise MemoryError("too large")
        claim.outcome.values = {"loss@64": 1.0}
        claim.outcome.end("complete")

    with monkeypatch.context() as patch:
        patch.setattr("miniwin.search.measure.run_claim", broken)
        assert work(study.folder, "0") == DONE  # the trials go on without it
    data = collect(study)
    assert len(data.trained) == 1 and not data.finished
    assert summary(data)[-1] == "base: failed, MemoryError: too large"
    assert claims.retry_failed(study) == 1
    assert spend(study) == NoClaim(over=True) and collect(study).finished


def test_objectives_have_names_in_optuna(tmp_path: Path) -> None:
    objectives = ["minimize loss@64", "minimize cache_bytes@4096"]
    study = make(tmp_path, objectives=objectives, baseline=None)
    assert study.optuna.metric_names == ["loss@64", "cache_bytes@4096"]
    # A study from before they were given: read as it is, named when it goes on.
    journal = study.folder / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "metric_names" not in line))
    before = journal.read_text()
    assert collect(Study(study.folder)).trials == [] and journal.read_text() == before
    assert make(tmp_path, objectives=objectives, baseline=None).optuna.metric_names == ["loss@64", "cache_bytes@4096"]
    make(tmp_path, objectives=objectives, baseline=None)
    assert journal.read_text().count("metric_names") == 1  # once is enough


def test_the_table_of_trials(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 3})
    spend_one = take_work(study, "0")
    assert isinstance(spend_one, Claim) and spend_one.number is None
    pretend(study, spend_one, 2.5)
    first, second = take_work(study, "0"), take_work(study, "0")
    assert isinstance(first, Claim) and isinstance(second, Claim)
    pretend(study, first, 1.25)
    second.outcome.rungs = [{"tokens": 384, "values": {"loss@64": 3.5}}]
    second.outcome.write(second.folder)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(study_table(collect(study), "1 of 3 trials"))
    text = console.export_text()
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert "complete" in rows["base"] and "2.5000" in rows["base"]
    assert "complete *" in rows[str(first.number)] and "1.2500" in rows[str(first.number)]
    assert "running" in rows[str(second.number)] and "~3.5000" in rows[str(second.number)]
    assert "1 of 3 trials" in text
