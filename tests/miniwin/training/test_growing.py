"""Budgets that grow: the run that goes on is, bit for bit, the run that had the larger budget from the start."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import kill, start, together
from tiny_runs import assert_equal, tiny_model, tiny_train, train_there, write_text

from miniwin.checkpoint import load_checkpoint
from miniwin.runs import (
    BEFORE_DECAY,
    BEFORE_DECAY_BEST,
    BEST,
    SHARDS,
    RunResult,
    checkpoint_bytes,
    read_lines,
    read_run,
    remove_checkpoint,
)
from miniwin.specs import TrainSpec, UserError, dump_yaml
from miniwin.specs.train import CosineSchedule, WSDSchedule
from miniwin.training.growing import shared_steps
from miniwin.training.launch import train
from miniwin.training.schedule import before_decay, warmup_steps

STEP = 4 * 32
EVAL = {"every": 5 * STEP, "tokens": 100, "keep_best": "minimize loss@32"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


def wsd(steps: int, warmup: float = 0.1, decay: float = 0.25, **changes: Any) -> TrainSpec:
    """20 steps have 2 of warm-up, and 5 of decay: the first one of these, number 16, still has the peak."""
    schedule = {"type": "wsd", "warmup": warmup, "decay": decay}
    return tiny_train(tokens=steps * STEP, schedule=schedule, **changes)


def go(out: str, spec: TrainSpec, **options: Any) -> RunResult:
    return train(tiny_model(), spec, out=out, progress=False, tracking="off", device="cpu", **options)


def assert_same(one: str, other: str) -> None:
    clock = {"seconds": None, "step_seconds": None}
    for name in ("checkpoint.pt", BEFORE_DECAY):
        assert_equal(*({**load_checkpoint(Path(folder, name)), **clock} for folder in (one, other)))
    for name in ("model.safetensors", BEST, BEFORE_DECAY_BEST):
        if Path(one, name).exists() or Path(other, name).exists():
            assert Path(one, name).read_bytes() == Path(other, name).read_bytes(), name
    timeless = [
        [{**line, "tokens_per_second": 0, "seconds": 0} for line in read_lines(folder)] for folder in (one, other)
    ]
    assert timeless[0] == timeless[1]
    assert read_run(one).get("best") == read_run(other).get("best")


def test_a_finished_run_goes_on_from_before_its_decay() -> None:
    go("grown", wsd(20, eval=EVAL))
    assert load_checkpoint(Path("grown", BEFORE_DECAY))["step"] == 16
    for steps, warmup in (30, 2 / 30), (50, 2 / 50):
        assert go("grown", wsd(steps, eval=EVAL)).status == "complete"
        go(f"whole-{steps}", wsd(steps, warmup, eval=EVAL))
        assert_same("grown", f"whole-{steps}")
    record = read_run("grown")
    assert record["grown"] == {"warmup_steps": 2, "budgets": [20 * STEP, 30 * STEP]}
    assert record["train"]["tokens"] == 50 * STEP and record["steps"] == 50
    before = {path.name: path.stat().st_mtime_ns for path in Path("grown").iterdir()}
    assert go("grown", wsd(50, eval=EVAL)).steps == 50
    assert {path.name: path.stat().st_mtime_ns for path in Path("grown").iterdir()} == before


@pytest.mark.parametrize("stop", [1, 10, 16, 19])
def test_a_run_that_was_stopped_grows_too(stop: int) -> None:
    """In its warm-up, before, at and after the beginning of its decay."""
    go("grown", wsd(20), stop_after_tokens=stop * STEP)
    go("grown", wsd(40))
    go("whole", wsd(40, 0.05))
    assert_same("grown", "whole")


def test_a_constant_rate_goes_on_from_the_last_checkpoint() -> None:
    go("grown", wsd(10, decay=0.0, warmup=0.2))
    assert not Path("grown", BEFORE_DECAY).exists()
    go("grown", wsd(20, decay=0.0, warmup=0.2))
    go("whole", wsd(20, decay=0.0, warmup=0.1))
    assert Path("grown/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert read_lines("grown")[0]["loss"] == read_lines("whole")[0]["loss"]


def test_kill_9_while_it_grows() -> None:
    """While files are put in their places, before the first checkpoint of the larger budget, and anywhere later."""
    small, large = (wsd(steps, checkpoint_seconds=0, eval=EVAL) for steps in (20, 60))
    go("killed", small)
    go("whole", wsd(60, 2 / 60, checkpoint_seconds=0, eval=EVAL))
    rng = random.Random(0)
    for wanted in (0, 17, 25, 40):
        process = start(train_there, "killed", dump_yaml(large), torch.get_num_threads())
        while process.is_alive() and (
            read_run("killed")["train"]["tokens"] == small.tokens
            or not (lines := read_lines("killed"))
            or lines[-1]["step"] < wanted
        ):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        kill(process)
    assert go("killed", large).status == "complete"
    assert_same("killed", "whole")


def test_a_crash_before_run_json_says_so_leaves_the_smaller_run(monkeypatch: pytest.MonkeyPatch) -> None:
    go("whole", wsd(20))
    go("run", wsd(20))
    with monkeypatch.context() as patch:
        patch.setattr("miniwin.training.loop.make_engine", lambda *of: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go("run", wsd(40))
    assert read_run("run")["train"]["tokens"] == 20 * STEP and not Path("run/model.safetensors").exists()
    assert go("run", wsd(20)).status == "complete"
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def few(steps: int, warmup: float = 1 / 6) -> TrainSpec:
    """6 steps have one of warm-up, and 3 of decay."""
    return wsd(steps, warmup, decay=0.5)


def in_two_processes() -> None:
    for steps in (6, 9):
        go("several", few(steps), distributed="fsdp")
    go("mixed", few(6), distributed="fsdp")


def test_a_sharded_run_grows() -> None:
    together(in_two_processes)
    go("mixed", few(9))
    go("whole", few(9, 1 / 9))
    assert read_lines("several")[-1]["loss"] == pytest.approx(read_lines("whole")[-1]["loss"], abs=1e-5)
    assert read_lines("mixed")[-1]["loss"] == pytest.approx(read_lines("whole")[-1]["loss"], abs=1e-5)
    assert [line["step"] for line in read_lines("several")] == list(range(1, 10))
    assert len([name for name in SHARDS if Path("several", name).exists()]) == 2
    assert not [name for name in SHARDS if Path("mixed", name).exists()]


def test_checkpoints_that_are_removed_are_all_removed() -> None:
    go("run", wsd(20, eval=EVAL))
    names = ("checkpoint.pt", BEFORE_DECAY, BEFORE_DECAY_BEST)
    assert checkpoint_bytes(Path("run")) == sum(Path("run", name).stat().st_size for name in names)
    remove_checkpoint(Path("run"))
    assert checkpoint_bytes(Path("run")) == 0 and not any(Path("run", name).exists() for name in names)
    with pytest.raises(
        UserError, match="which cannot grow to 5,120: its checkpoint is gone: begin a new run with its weights"
    ):
        go("run", wsd(40, eval=EVAL))


@pytest.mark.parametrize(
    ("first", "removed", "then", "message"),
    [
        (
            tiny_train(tokens=640),
            "",
            tiny_train(tokens=1280),
            "falls as a cosine over the whole budget, so none of its",
        ),
        (wsd(20), BEFORE_DECAY, wsd(40), "its decay has begun, and there is no before-decay.pt from before"),
        (wsd(20), "", wsd(10), r"with other settings \(train.tokens: 2560 there, 1280 now\)"),
        (wsd(20), "", wsd(40, decay=0.5), r"with other settings \(train.schedule.decay: 0.25 there, 0.5 now\)"),
        (tiny_train(tokens=1280, optimizer={"lr": 1e38}), "", None, "it diverged, and would again: begin a new run"),
    ],
    ids=["cosine", "removed", "smaller", "other", "diverged"],
)
def test_what_cannot_grow_says_why(first: TrainSpec, removed: str, then: TrainSpec | None, message: str) -> None:
    go("run", first)
    if removed:
        Path("run", removed).unlink()
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    with pytest.raises(UserError, match=message):
        go("run", then or first.model_copy(update={"tokens": 2 * first.tokens}))
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_the_steps_that_budgets_share() -> None:
    for few, many, warmup, decay in (20, 40, 0.1, 0.25), (7, 8, 0.0, 0.5), (100, 101, 0.05, 0.2), (3, 9, 0.0, 0.34):
        spec = wsd(few, warmup, decay)
        kept = warmup_steps(spec.schedule, few)
        assert shared_steps(spec, few, many, kept) == (before_decay(spec.schedule, few) or few)
    assert before_decay(WSDSchedule(decay=0.0), 20) is None and before_decay(CosineSchedule(), 20) is None
    assert shared_steps(tiny_train(), 20, 40, 0) == 1
