"""`learning_rate: tuned`: what is tried, what is taken, what it costs, and who else gets the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from deaths import EVERY_STEP, Deaths
from search_helpers import make, tried, write_search

from miniwin.data import prepare
from miniwin.language_model import LanguageModel
from miniwin.search.comparing import compare_studies
from miniwin.search.comparison_lines import comparison_lines
from miniwin.search.confirm.plan import variants_of
from miniwin.search.creation import create_study
from miniwin.search.frames import to_columns
from miniwin.search.known_rates import known_rates
from miniwin.search.live_table import study_lines, summary
from miniwin.search.measure import check_corpus
from miniwin.search.promotion import promote
from miniwin.search.records import collect
from miniwin.search.report.study_page import render
from miniwin.search.rungs import loss
from miniwin.search.space import check_search
from miniwin.search.study import Study
from miniwin.search.trial_trainings import TrialTraining
from miniwin.search.tuning import best_rate
from miniwin.search.worker import DONE, work
from miniwin.specs import UserError, load_search_spec
from miniwin.specs.learning_rate import TunedRate
from miniwin.specs.objectives import Objective
from miniwin.tokenizer import load_tokenizer
from miniwin.training.launch import train
from miniwin.training.loop import TrainingLoop

RATES = {"tuned": [0.03, 0.003, 0.01]}
LOSS = Objective.parse("minimize loss@64")


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def swept(rate: float, value: float | None) -> TrialTraining:
    return TrialTraining(f"rates/{rate}", 0, learning_rate=rate, values={} if value is None else {"loss@64": value})


def test_the_rate_with_the_lowest_loss_is_taken() -> None:
    assert best_rate([swept(0.001, 3.0), swept(0.002, 2.0), swept(0.004, 2.5)], LOSS) == 0.002
    assert best_rate([swept(0.001, 2.0), swept(0.002, 2.0)], LOSS) == 0.001, "of equals the lowest"
    assert best_rate([swept(0.001, 9.0), swept(0.002, None), swept(0.004, float("nan"))], LOSS) == 0.001
    assert best_rate([swept(0.001, None), swept(0.002, float("inf"))], LOSS) is None
    share = Objective.parse("maximize recall@64")
    found = [TrialTraining("rates/1", 0, learning_rate=rate, values={"recall@64": rate}) for rate in (0.1, 0.2)]
    assert best_rate(found, share) == 0.2


def test_rates_and_factors() -> None:
    assert TunedRate().rates(0.003) == [0.0015, 0.003, 0.006]
    assert TunedRate(factors=[3.0, 1.0]).rates(0.003) == [0.003, 0.009], "no 0.009000000000000001"
    assert TunedRate.model_validate(RATES).rates(1.0) == [0.003, 0.01, 0.03]


def test_after_its_sweep_a_trial_is_a_plain_one_with_that_rate_to_the_bit(tmp_path: Path) -> None:
    study = make(tmp_path, learning_rate=RATES, budget={"trials": 1}, train={"seed": 3})
    assert work(study.folder, "0") == DONE
    data = collect(Study(study.folder, reading=True))
    (trial,) = data.trained
    assert trial.state == "complete" and trial.train is not None and trial.run_folder is not None
    rate = trial.learning_rate
    assert rate is not None and trial.train.optimizer.lr == rate
    plain = make(tmp_path, out="plain", budget={"trials": 1}, train={"seed": 3, "optimizer": {"lr": rate}})
    assert work(plain.folder, "0") == DONE
    (alone,) = collect(plain).trained
    assert alone.run_folder is not None and weights(alone.run_folder) == weights(trial.run_folder)
    assert (alone.layout, alone.values, alone.losses, alone.rungs) == (
        trial.layout, trial.values, trial.losses, trial.rungs,
    )  # fmt: skip
    # The sweep: short trainings with schedules of their own, measured as trials are.
    sweep = trial.trainings[:-1]
    assert [one.folder for one in trial.trainings] == ["rates/0.003", "rates/0.01", "rates/0.03", "run"]
    corpus = prepare(data.train.data, load_tokenizer("byte"), tmp_path)
    for one in sweep:
        assert one.learning_rate is not None and one.seed == 3 and one.tokens == 384 == 1536 // 4
        optimizer = data.train.optimizer.model_copy(update={"lr": one.learning_rate})
        spec = data.train.model_copy(update={"tokens": 384, "optimizer": optimizer})
        assert trial.spec is not None
        found: list[float] = []

        def at_end(tokens: int, model: LanguageModel, found: list[float] = found) -> None:
            found.append(loss(model, corpus, 64, 256))

        out = tmp_path / one.folder.replace("/", "-")
        train(
            trial.spec, spec, out=out, base=tmp_path, progress=False, tracking="off", on_eval=at_end, eval_at=[384]
        )  # fmt: skip
        assert weights(out) == weights(trial.run_folder.parent / one.folder) and one.values == {"loss@64": found[0]}
    losses = {one.learning_rate: one.values["loss@64"] for one in sweep}
    assert rate == min(losses, key=lambda one: losses[one]) and len(set(losses.values())) == 3
    assert trial.tokens == 1536 + 3 * 384 and trial.tokens_each == 1536 and trial.hash != alone.hash


def test_what_is_at_the_edge_of_the_sweep_is_said(tmp_path: Path) -> None:
    # The lower of these hardly learns, so the higher one is the best.
    study = make(tmp_path, learning_rate={"tuned": [0.003, 1e-9]}, budget={"trials": 1})
    assert work(study.folder, "0") == DONE
    data = collect(study)
    (trial,) = data.trained
    written = json.loads((study.trial_folder(str(trial.hash)) / "trial.json").read_text())
    assert written["learning_rate"] == 0.003 and written["rate_at_edge"] is True
    assert written["train"]["optimizer"]["lr"] == 0.003
    assert "0.003 (edge)" in "\n".join(study_lines(data))
    assert "the best is at the edge in 1 of 1 sweep" in "\n".join(summary(data))
    columns = to_columns(data)
    assert columns["learning_rate"] == [0.003] and columns["rate_at_edge"] == [True]
    page = render(data)
    assert "tuned the learning rate: 1e-09, 0.003" in page and "at the edge of these" in page


def test_a_rate_that_diverges_loses_and_a_trial_without_a_rate_is_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, fatal = TrainingLoop._advance, [0.003]

    def diverging(loop: TrainingLoop) -> str | None:
        return "a loss of nan" if loop.spec.optimizer.lr in fatal and loop.step == 1 else advance(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", diverging)
    study = make(tmp_path, learning_rate={"tuned": [0.003, 1e-9, 2e-9]}, budget={"trials": 1})
    assert work(study.folder, "0") == DONE
    (trial,) = collect(study).trained
    assert trial.state == "complete" and trial.learning_rate == 2e-9 and trial.rate_at_edge is False
    assert trial.trainings[2].reason == "diverged: a loss of nan" and trial.trainings[2].tokens == 128
    fatal[:] = [0.003, 0.01, 0.03]
    hopeless = make(tmp_path, out="hopeless", learning_rate=RATES, budget={"trials": 1}, pruner={"type": "halving"})
    assert work(hopeless.folder, "0") == DONE
    (trial,) = collect(hopeless).trained
    assert trial.state == "pruned" and trial.tokens == 3 * 128
    assert trial.reason == "diverged at each learning rate of the sweep (0.003, 0.01, 0.03)"


def test_baseline_and_winner_get_the_same_sweep_and_are_confirmed_with_their_own_rates(tmp_path: Path) -> None:
    path = write_search(
        tmp_path,
        train={"tokens": 512, "data": {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}},
        learning_rate={"factors": [0.25, 4], "share": 0.5},
        seeds=2,
        budget={"trials": 1},
        confirm={"top": 1, "seeds": 1},
    )
    study = create_study(load_search_spec(path), tmp_path, out=tmp_path / "study")
    assert work(study.folder, "0") == DONE
    data = collect(Study(study.folder, reading=True))
    assert data.finished and data.baseline is not None and data.confirmation is not None
    (trial,) = data.trained
    for one in (trial, data.baseline):
        assert [training.folder for training in one.trainings] == ["rates/0.00075", "rates/0.012", "run", "seeds/1"]
        assert one.learning_rate in (0.00075, 0.012) and one.tokens == 2 * 256 + 2 * 512
    confirmed = {one.variant.number: one.candidate.train for one in data.confirmation.trainings}
    assert confirmed[trial.number].optimizer.lr == trial.learning_rate
    assert confirmed[None].optimizer.lr == data.baseline.learning_rate
    assert {one.seed for one in confirmed.values()} == {2}, "the trials have had 0 and 1"
    entry = promote(study.folder, name="winner", zoo=tmp_path / "zoo", lengths=[32], progress=False, tracking="off")
    card = (entry.folder / "README.md").read_text()
    assert "| Weights | seed 0, the first of 2; the values of the trial are means over all of them |" in card
    said = f"| Learning rate | {trial.learning_rate:g}, the best of 0.00075, 0.012, and at their edge |"
    assert said in card and entry.provenance["run"]["train"]["optimizer"]["lr"] == trial.learning_rate
    other = promote(
        study.folder, name="other", zoo=tmp_path / "zoo", lengths=[32], progress=False, tracking="off",
        set_train=["optimizer.lr=0.005"],
    )  # fmt: skip
    assert f"{said.removesuffix(' |')}; the weights are of 0.005 |" in (other.folder / "README.md").read_text()
    result = data.confirmation.result
    assert result is not None and all(run.state == "complete" for one in result.variants for run in one.runs)


def test_a_death_at_any_moment_tries_no_rate_twice_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = Deaths(monkeypatch)

    def searched(at: int) -> list[Any]:
        (tmp_path / str(at)).mkdir()
        study = make(
            tmp_path / str(at), learning_rate={"tuned": [0.003, 0.01], "share": 0.5}, seeds=2, budget={"trials": 2},
            pruner={"type": "halving", "reduction": 2}, train=EVERY_STEP,
        )  # fmt: skip
        return deaths.survived(study, at)

    expected = searched(-1)
    moments = deaths.count
    for at in range(2, moments, moments // 4):
        assert searched(at) == expected, f"killed at moment {at} of {moments}"


@pytest.mark.parametrize(
    ("asked", "line", "said"),
    [
        ("0.003", "learning_rate: 0.003", "expected tuned, or rates to try"),
        ("{tuned: [0.003]}", "learning_rate: {tuned: [0.003]}", "tuned"),
        ("{tuned: [0.003, 0.003]}", "learning_rate: {tuned: [0.003, 0.003]}", "got 0.003 twice"),
        ("{tuned: [1e-3, 2e-3], factors: [1, 2, 3]}", "learning_rate: {tuned: [1e-3", "leave out one of them"),
        ("{share: 0.01}", "learning_rate: {share: 0.01}", "no step fits"),
        ("{shares: 0.5}", "learning_rate: {shares: 0.5}", "share"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, asked: str, line: str, said: str) -> None:
    path = write_search(tmp_path, baseline=None)
    text = path.read_text() + f"learning_rate: {asked}\n"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        check_search(path)
    place = next(n for n, one in enumerate(text.splitlines(), 1) if one.startswith(line))
    assert f"search.yaml:{place}:" in str(raised.value) and said in str(raised.value)


@pytest.mark.parametrize("field", ["train.optimizer.lr", "train.optimizer"])
def test_a_rate_that_is_searched_is_not_tuned_as_well(tmp_path: Path, field: str) -> None:
    path = write_search(tmp_path, baseline=None, learning_rate="tuned")
    value = "ratio * 0.001" if field.endswith("lr") else "{lr: 0.001}"
    text = path.read_text().replace("set:\n", f"set:\n  {field}: {value}\n")
    path.write_text(text)
    with pytest.raises(UserError, match="each trial tunes its learning rate") as raised:
        check_search(path)
    place = text.splitlines().index(f"  {field}: {value}") + 1
    assert f"search.yaml:{place}:3" in str(raised.value)


def test_a_study_in_a_database_knows_the_rates_and_the_seeds(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    asked = {"learning_rate": RATES, "seeds": 2, "budget": {"trials": 1}, "train": {"tokens": 512}}
    study = make(tmp_path, url=url, **asked)
    assert work(study.folder, "0") == DONE
    (trial,) = collect(Study(study.folder, reading=True)).trained
    assert trial.state == "complete" and trial.train is not None and trial.problem is None
    assert trial.train.optimizer.lr == trial.learning_rate and trial.rate_at_edge is not None
    assert [one.folder for one in trial.trainings][2:] == ["rates/0.03", "run", "seeds/1"]
    assert trial.spread and len(trial.run_folders) == 5 and trial.tokens == 3 * 128 + 2 * 512


def test_what_a_trial_is_and_how_its_rate_was_found_is_said(tmp_path: Path) -> None:
    path = write_search(tmp_path, learning_rate={"factors": [1, 2]}, seeds=3, baseline=None)
    assert check_search(path).endswith("; a trial is 5 trainings, 5,376 tokens together")
    tuned = tried(make(tmp_path, out="tuned", name="tuned", learning_rate={"factors": [1, 2]}, seeds=3))
    plain = tried(make(tmp_path, out="plain", name="plain"))
    lines = comparison_lines(compare_studies(tuned.folder, plain.folder))
    assert any(line.split("  ")[0] == "learning rate" and "tuned: 1x, 2x" in line for line in lines)
    assert any("3 seeds x 1,536 tokens" in line for line in lines)
    assert not any("learning rate" in line for line in comparison_lines(compare_studies(plain.folder, plain.folder)))


def test_a_rate_needs_something_that_training_changes(tmp_path: Path) -> None:
    study = make(tmp_path, learning_rate="tuned", objectives=["minimize parameters"])
    without = cast(Any, SimpleNamespace(has_text=False, info={"source": "examples"}))
    with pytest.raises(UserError, match="learning_rate: a rate is judged by an objective that training changes"):
        check_corpus(study.spec, study.train, without)


def test_another_sweep_is_another_search_and_none_is_what_was_before(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 1})
    assert "learning_rate" not in (study.folder / "search.yaml").read_text()
    spec = load_search_spec(study.folder / "search.yaml", ["learning_rate=tuned"])
    assert spec.learning_rate == TunedRate()
    with pytest.raises(UserError, match=r"search\.learning_rate"):
        create_study(spec, study.folder, out=study.folder)


def test_a_rate_whose_record_is_lost_is_known_from_the_run(tmp_path: Path) -> None:
    study = make(tmp_path, learning_rate=RATES, budget={"trials": 1}, train={"tokens": 512})
    assert work(study.folder, "0") == DONE
    (trial,) = collect(study).trained
    assert trial.run_folder is not None and trial.learning_rate is not None
    (trial.run_folder.parent / "trial.json").unlink()
    opened = Study(study.folder, reading=True)
    data = collect(opened)
    assert data.rates == {0: None} and data.ranked
    assert known_rates(opened, data) == {0: trial.learning_rate}
    (variant,) = variants_of(opened, [(0, data.ranked[0].params)], known_rates(opened, data))
    assert variant.candidate.train.optimizer.lr == trial.learning_rate, "so it can be confirmed, and grown in a ladder"
    (trial.run_folder / "run.json").unlink()
    assert known_rates(opened, data) == {0: None}
