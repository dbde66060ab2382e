"""Trials that are trained with several seeds: what they are worth, how they wait and go on, what is said of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from deaths import EVERY_STEP, Deaths, Killed
from search_helpers import make, write_search

from miniwin.runs import read_metrics, read_run
from miniwin.search.creation import create_study
from miniwin.search.frames import to_columns
from miniwin.search.history import history
from miniwin.search.live_table import study_lines, summary, tokens_so_far
from miniwin.search.records import collect
from miniwin.search.report.study_page import render
from miniwin.search.rungs import AtRungs
from miniwin.search.study import Study
from miniwin.search.trial_trainings import TrialTraining, means, seed_after, spreads
from miniwin.search.warming import warm_start
from miniwin.search.worker import DONE, work
from miniwin.specs import SearchSpec, TrainSpec, UserError, dump_yaml, load_search_spec, parse_spec
from miniwin.training.launch import train
from miniwin.training.loop import TrainingLoop

HALF: dict[str, Any] = {"type": "halving", "reduction": 2}


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_means_and_their_standard_errors() -> None:
    rows = [{"a": 1.0, "n": 7}, {"a": 2.0, "n": 7}, {"a": 6.0, "n": 7}]
    assert means(rows) == {"a": 3.0, "n": 7} and isinstance(means(rows)["n"], int)
    assert spreads(rows) == {"a": pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))}
    assert means(rows[:1]) == rows[0] and spreads(rows[:1]) == {}
    assert math.isnan(means([{"a": 1.0}, {"a": math.inf}])["a"]) and means([{"a": 1.0}, {}]) == {}
    seeds = TrainSpec.model_validate({**_train(), "seed": 2**64 - 1})
    assert [seed_after(seeds, place) for place in (0, 1)] == [2**64 - 1, 0]


def _train() -> dict[str, Any]:
    return {"name": "t", "data": {"source": "python-stdlib"}, "tokens": 1024}


def test_a_trial_with_three_seeds_is_the_mean_of_three_trials_to_the_bit(tmp_path: Path) -> None:
    study = make(tmp_path, seeds=3, train={"seed": 5}, budget={"trials": 1})
    assert work(study.folder, "0") == DONE
    data = collect(study)
    (trial,) = data.trained
    assert data.finished and trial.state == "complete" and trial.seed == 5
    assert [one.seed for one in trial.trainings] == [5, 6, 7]
    assert [one.folder for one in trial.trainings] == ["run", "seeds/1", "seeds/2"]
    alone = []
    for seed in (5, 6, 7):
        single = make(tmp_path, out=f"seed-{seed}", train={"seed": seed}, budget={"trials": 1})
        assert work(single.folder, "0") == DONE
        alone += collect(single).trained
    assert {one.layout for one in alone} == {trial.layout} and alone[0].hash == trial.hash
    for training, one in zip(trial.trainings, alone, strict=True):
        assert trial.run_folder is not None and one.run_folder is not None
        assert weights(trial.run_folder.parent / training.folder) == weights(one.run_folder)
        assert (training.values, training.losses, training.rungs) == (one.values, one.losses, one.rungs)
    assert trial.values == {"loss@64": math.fsum(one.values["loss@64"] for one in alone) / 3}
    assert trial.losses == {length: math.fsum(one.losses[length] for one in alone) / 3 for length in (32, 64)}
    for place, rung in enumerate(trial.rungs):
        assert rung["values"] == {"loss@64": math.fsum(one.rungs[place]["values"]["loss@64"] for one in alone) / 3}
    assert trial.tokens == sum(one.tokens for one in alone) == 3 * trial.tokens_each
    assert study.optuna.trials[0].values == list(trial.values.values())


def test_the_spread_is_said_wherever_the_mean_is(tmp_path: Path) -> None:
    study = make(tmp_path, seeds=2, budget={"trials": 1}, objectives=["minimize loss@64", "minimize parameters"])
    assert work(study.folder, "0") == DONE
    data = collect(Study(study.folder, reading=True))
    (trial,) = data.trained
    first, second = (one.values["loss@64"] for one in trial.trainings)
    assert trial.spread == {"loss@64": pytest.approx(abs(first - second) / 2)}
    assert isinstance(trial.values["parameters"], int)
    said = f"±{trial.spread['loss@64']:.2g}"
    assert said in "\n".join(study_lines(data)) and said in "\n".join(summary(data))
    assert "means over 2 seeds" in "\n".join(summary(data))
    columns = to_columns(data)
    assert columns["spread:loss@64"] == [trial.spread["loss@64"]] and columns["spread:parameters"] == [None]
    page = render(data)
    assert "Every trial is 2 seeds" in page and "one seed" not in page and '<th scope="col">± ' in page
    # A trial that runs has the tokens of all its trainings.
    running = json.loads((study.folder / "trials" / str(trial.hash)[:12] / "trial.json").read_text())
    assert running["tokens"] == 2 * 1536 and running["spread"]
    object.__setattr__(trial, "state", "running")
    object.__setattr__(trial, "tokens", 0)
    assert tokens_so_far(trial) == 2 * 1536


def test_rungs_are_judged_by_the_mean_and_every_seed_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, seeds=2, pruner=HALF, budget={"trials": 6})
    steps: list[Path] = []
    advance = TrainingLoop._advance

    def counted(loop: TrainingLoop) -> str | None:
        steps.append(loop.folder)
        return advance(loop)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_advance", counted)
        assert work(study.folder, "0") == DONE
    data = collect(study)
    assert data.finished and len(data.trained) == 6
    known = {one.number: one for one in history(study)}
    for trial in data.trained:
        assert trial.run_folder is not None
        assert len({len(one.rungs) for one in trial.trainings}) == 1, "no seed is ahead of a judgement"
        for place, rung in enumerate(trial.rungs):
            rows = [one.rungs[place]["values"]["loss@64"] for one in trial.trainings]
            assert rung["values"]["loss@64"] == known[trial.number].rungs[place][0] == math.fsum(rows) / 2
        for one in trial.trainings:
            folder = trial.run_folder.parent / one.folder
            done = steps.count(folder)
            assert done * data.train.tokens_per_step == one.tokens, "no token twice"
            assert [line["step"] for line in read_metrics(folder)] == list(range(1, done + 1))
        assert trial.tokens == sum(one.tokens for one in trial.trainings)
    assert {trial.state for trial in data.trained} == {"complete", "pruned"}
    waited = next(trial for trial in data.completed if trial.attempts > 1)
    assert waited.spec is not None and waited.train is not None and waited.run_folder is not None
    for one in waited.trainings:
        spec = waited.train.model_copy(update={"seed": one.seed})
        straight = train(
            waited.spec, spec, out=tmp_path / f"s{one.seed}", base=tmp_path, progress=False, tracking="off"
        )
        assert weights(straight.folder) == weights(waited.run_folder.parent / one.folder)


def test_a_death_at_any_moment_trains_nothing_twice_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = Deaths(monkeypatch)

    def searched(at: int) -> list[Any]:
        (tmp_path / str(at)).mkdir()
        study = make(tmp_path / str(at), seeds=2, pruner=HALF, budget={"trials": 3}, train=EVERY_STEP)
        return deaths.survived(study, at)

    expected = searched(-1)
    assert len(expected) == 3
    moments = deaths.count
    for at in range(3, moments, moments // 6):
        assert searched(at) == expected, f"killed at moment {at} of {moments}"


def test_a_lost_record_of_a_trial_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed has gone on from a rung that nothing says any more what was measured there: the others do not wait."""
    deaths = Deaths(monkeypatch)
    study = make(tmp_path, seeds=2, pruner={"type": "median", "startup": 5}, budget={"trials": 1}, train=EVERY_STEP)

    def reached() -> bool:
        return ("seeds/1", 1) in [("/".join(folder.parts[-2:]), step) for folder, step in deaths.steps]

    chosen, following = [0], AtRungs.next

    def counted(at_rungs: AtRungs) -> TrialTraining | None:
        chosen[0] += 1
        assert chosen[0] < 50, "they wait for each other"
        return following(at_rungs)

    monkeypatch.setattr(AtRungs, "next", counted)
    deaths.dies_when(reached)
    with pytest.raises(Killed):
        work(study.folder, "0")
    (record,) = study.folder.glob("trials/*/trial.json")
    assert [len(one["rungs"]) for one in json.loads(record.read_text())["trainings"]] == [1, 1]
    record.unlink()
    (trial,) = [deaths.survived(study, -1)]
    assert trial[0][2] == "complete"
    plain = make(tmp_path, out="plain", seeds=2, budget={"trials": 1}, train=EVERY_STEP)
    assert collect(study).trained[0].values == deaths.survived(plain, -1)[0][5]


def test_a_pruner_of_one_value_is_told_the_mean(tmp_path: Path) -> None:
    for name, pruner in (("median", {"type": "median", "startup": 1}), ("none", None)):
        study = make(tmp_path, out=name, seeds=2, pruner=pruner, budget={"trials": 3}, train={"tokens": 512})
        assert work(study.folder, "0") == DONE
        known = {one.number: one for one in history(study)}
        for trial in collect(study).trained:
            tried, told = known[trial.number], study.optuna.trials[trial.number]
            found = [rung["values"]["loss@64"] for rung in trial.rungs]
            assert len(found) == 2 or (name == "median" and trial.state == "pruned")
            assert [row[0] for row in tried.rungs[: len(found)]] == found
            assert list(told.intermediate_values.values()) == (found if pruner else [])


def test_trials_with_as_many_seeds_are_taken_from_another_study(tmp_path: Path) -> None:
    old = make(tmp_path, out="old", seeds=2, budget={"trials": 1}, train={"tokens": 512})
    assert work(old.folder, "0") == DONE
    (trial,) = collect(old).trained
    assert trial.run_folder is not None
    text = read_run(trial.run_folder)["data"]["fingerprint"]
    more: dict[str, Any] = {"warm_start": [str(old.folder)], "budget": {"trials": 2}, "train": {"tokens": 512}}
    warm = make(tmp_path, out="new", name="new", seeds=2, **more)
    assert "1 trial taken as they are" in warm_start(warm, text)[0]
    (taken,) = collect(warm).completed
    assert (taken.values, taken.spread, taken.trainings) == (trial.values, trial.spread, trial.trainings)
    assert [weights(run) for run in taken.run_folders] == [weights(run) for run in trial.run_folders]
    other = make(tmp_path, out="other", name="other", seeds=3, **more)
    assert "taken" not in warm_start(other, text)[0], "a mean of three is another value"


def test_one_seed_that_diverges_is_the_end_of_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path, seeds=2, pruner=HALF, budget={"trials": 1})
    advance = TrainingLoop._advance

    def diverging(loop: TrainingLoop) -> str | None:
        return "a loss of nan" if loop.spec.seed == 1 and loop.step == 4 else advance(loop)

    monkeypatch.setattr(TrainingLoop, "_advance", diverging)
    assert work(study.folder, "0") == DONE
    (trial,) = collect(study).trained
    assert trial.state == "pruned" and trial.values == {} and trial.reason == "diverged: a loss of nan (seed 1)"
    (tried,) = history(study)
    assert len(tried.rungs) == 2 and math.isnan(tried.rungs[1][0]), "the worst at the rung that it did not reach"


def test_seeds_that_would_be_set_twice_are_refused_with_their_place(tmp_path: Path) -> None:
    path = write_search(tmp_path, seeds=2, baseline=None)
    lines = path.read_text().replace("set:\n", "set:\n  train.seed: ratio\n").splitlines()
    path.write_text("\n".join(lines))
    from miniwin.search.space import check_search

    with pytest.raises(UserError, match="each trial is trained with 2 seeds") as raised:
        check_search(path)
    assert f"search.yaml:{lines.index('  train.seed: ratio') + 1}:3" in str(raised.value)
    for wrong in (0, 101, 1.5, "two"):
        with pytest.raises(UserError, match="seeds"):
            load_search_spec(path, [f"seeds={wrong}"])


def test_without_the_field_nothing_is_written_that_was_not_before(tmp_path: Path) -> None:
    study = make(tmp_path, budget={"trials": 1})
    assert "seeds" not in (study.folder / "search.yaml").read_text()
    assert "seeds" not in study.spec.model_dump(mode="json")
    assert work(study.folder, "0") == DONE
    (trial,) = collect(study).trained
    folder = study.trial_folder(str(trial.hash))
    written = json.loads((folder / "trial.json").read_text())
    assert not {"trainings", "spread"} & set(written) and sorted(path.name for path in folder.iterdir()) == [
        "run",
        "trial.json",
    ]
    assert not any(name.startswith("spread") for name in to_columns(collect(study)))
    data = {**parse_spec_data(study.spec), "seeds": 1}
    assert parse_spec(data, "search") == study.spec, "one seed is what nothing says"
    # Another number of seeds is another search.
    spec = load_search_spec(study.folder / "search.yaml", ["seeds=2"])
    with pytest.raises(UserError, match=r"search\.seeds"):
        create_study(spec, study.folder, out=study.folder)


def parse_spec_data(spec: SearchSpec) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(dump_yaml(spec)))


def test_damaged_trainings_are_no_trainings(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        TrialTraining.of({"folder": 3, "seed": 0})
    with pytest.raises(TypeError):
        TrialTraining.of({"folder": "run", "seed": 0, "else": 1})
