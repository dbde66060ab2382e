"""Predicted times: constants from measured ones, and searches that ask for them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from search_helpers import MODEL, SEARCH, TRAIN, make, write_search
from tiny import run_cli

from miniwin.search.objectives import cost
from miniwin.search.records import collect
from miniwin.search.space import Space, check_search
from miniwin.search.worker import DONE, work
from miniwin.specs import UserError, load_model_spec, load_train_spec, parse_spec
from miniwin.specs.speeds import Speeds
from miniwin.specs.yaml_document import Document
from miniwin.training import calibration

SPEEDS: dict[str, Any] = {"machine": "a", "tokens": 128, "flop": 2e-11, "score": 5e-11, "layer": 1e-3}


def test_a_prediction_is_the_sum_of_three_terms() -> None:
    model, speeds = load_model_spec("miniwin-1m"), Speeds.model_validate(SPEEDS)
    for length in (128, 4096):
        scores = model.forward_flops(length) - model.forward_flops(1)
        expected = 2e-11 * model.forward_flops(1) + 5e-11 * scores + 1e-3 * model.num_layers / 128
        assert speeds.seconds(model, length) == pytest.approx(expected, rel=1e-12)
        assert cost(f"train_time@{length}", model, 64, speeds) == speeds.seconds(model, length)
    assert cost("train_time@2x", model, 64, speeds) == speeds.seconds(model, 128)


def test_constants_are_found_again_in_the_times_that_they_give() -> None:
    train = load_train_spec("demo")
    models = [calibration.shaped(*shape) for shape in calibration.SHAPES]
    own = Speeds.model_validate({**SPEEDS, "tokens": train.tokens_per_step})
    exact = [own.seconds(model, train.longest) for model in models]
    found = calibration.fitted(models, exact, train, "a")
    assert found.speeds == own and found.rank == pytest.approx(1) and max(map(abs, found.errors)) < 1e-9
    # With noise no constant is negative, and the order is nearly right.
    random = Random(0)
    noisy = [time * random.uniform(0.9, 1.1) for time in exact]
    found = calibration.fitted(models, noisy, train, "a")
    assert found.rank > 0.9 and min(found.speeds.flop, found.speeds.score, found.speeds.layer) >= 0
    assert [found.speeds.seconds(m, 256) for m in models] == pytest.approx(exact, rel=0.15)


def test_the_command_prints_lines_for_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SHAPES", calibration.SHAPES[:1] + calibration.SHAPES[-3:])
    before = torch.get_num_threads()
    code, out, err = run_cli("calibrate", "demo", "--set", "batch_size=1", "--set", "seq_len=32", "--device", "cpu")
    assert code == 0 and torch.get_num_threads() == before, err
    assert err.count("microseconds a token") == 4 and "rank correlation" in out
    speeds = Speeds.model_validate(Document(out, "out").data["speeds"])
    assert speeds.tokens == 32 and "one thread, float32" in speeds.machine
    path = write_search(tmp_path, match="train_time", constraints=[])
    path.write_text(path.read_text() + out)
    assert parse_spec(Document(path.read_text(), "search.yaml").data, "search").speeds == speeds  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"objectives": ["minimize loss@64", "minimize train_time@1x"]}, "objectives.1: train_time@1x"),
        ({"constraints": ["window <= 16", "train_time@64 <= 1e-4"]}, "constraints.1: train_time@64"),
        ({"match": "train_time"}, "match: train_time@1x"),
    ],
)
def test_without_constants_a_search_is_refused(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    said = rf"search.yaml:\d+:\d+: {where} is predicted by constants of a machine, and there are none: put what "
    with pytest.raises(UserError, match=said + "`miniwin calibrate train.yaml` prints"):
        check_search(write_search(tmp_path, **changes))
    assert "3 variables" in check_search(write_search(tmp_path, **{"constraints": [], **changes}, speeds=SPEEDS))


def test_every_candidate_takes_as_long_as_the_base_model() -> None:
    spec = parse_spec({**SEARCH, "match": "train_time", "speeds": SPEEDS, "constraints": []}, "search")
    base = parse_spec({**MODEL, "hidden_size": 32, "num_layers": 6}, "model")
    space, speeds, random = Space(spec, base, parse_spec(TRAIN, "train")), Speeds.model_validate(SPEEDS), Random(0)
    found = [one for _ in range(20) if (one := space.assign(space.draw(random)).candidate) is not None]
    assert len(found) > 10
    assert all(abs(speeds.seconds(one.model, 32) / speeds.seconds(base, 32) - 1) <= 0.01 for one in found)


def test_a_study_keeps_its_constants_and_judges_by_them(tmp_path: Path) -> None:
    two = ["minimize loss@64", "minimize train_time@1x"]
    half = {"type": "halving", "reduction": 2}
    study = make(tmp_path, objectives=two, speeds=SPEEDS, constraints=[], budget={"trials": 2}, pruner=half)
    assert work(study.folder, "0") == DONE
    speeds = Speeds.model_validate(SPEEDS)
    for trial in collect(study).trials:
        assert trial.spec is not None
        known = study.optuna.trials[trial.number].user_attrs["rung:0"][1]
        assert known == speeds.seconds(trial.spec, 32), "known at the first rung"
        assert trial.state != "complete" or trial.values["train_time@1x"] == known
    assert "flop: 2.0e-11" in (study.folder / "search.yaml").read_text()
