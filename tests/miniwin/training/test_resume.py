"""Stopping and continuing: a run that was cut into pieces is, bit for bit, the run that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Command, kill, start
from tiny_runs import MIXTURE, assert_equal, tiny_model, tiny_train, train_there
from tiny_runs import write_text as write_corpus

from miniwin.checkpoint import load_checkpoint, save_checkpoint
from miniwin.files.writing import replacing, write_text
from miniwin.language_model import LanguageModel
from miniwin.runs import RunResult, keep_metrics, read_metrics, read_result, read_run
from miniwin.specs import TrainSpec, UserError, dump_yaml
from miniwin.training.launch import train


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)


def go(out: str, spec: TrainSpec, **options: Any) -> RunResult:
    return train(tiny_model(), spec, out=out, progress=False, tracking="off", device="cpu", **options)


def timeless(folder: str) -> list[dict[str, Any]]:
    """The metrics without the one that depends on the clock."""
    return [{**line, "tokens_per_second": None} for line in read_metrics(folder)]


def assert_same_run(one: str, other: str) -> None:
    clock = {"seconds": None, "step_seconds": None}
    assert_equal(
        {**load_checkpoint(Path(one) / "checkpoint.pt"), **clock},
        {**load_checkpoint(Path(other) / "checkpoint.pt"), **clock},
    )
    assert (Path(one) / "model.safetensors").read_bytes() == (Path(other) / "model.safetensors").read_bytes()
    assert timeless(one) == timeless(other)
    assert read_result(one).final_loss == read_result(other).final_loss


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_pieces_equal_the_whole(schedule: str) -> None:
    spec = tiny_train(gradient_accumulation=2, batch_size=2, log_every=4, schedule={"type": schedule})
    whole = go("whole", spec)
    assert whole.steps == 30
    for tokens in (1, 700, 1500, 1501, 3700):
        piece = go("pieces", spec, stop_after_tokens=tokens, workers=tokens % 2)
        done = -(-tokens // 128) * 128
        assert (piece.status, piece.reason) == ("interrupted", f"stopped after {done} tokens, as asked")
    assert go("pieces", spec).status == "complete"
    assert_same_run("whole", "pieces")


def test_rungs_that_are_passed_are_not_asked_again() -> None:
    asked: list[int] = []

    def on_eval(rung: int, model: LanguageModel) -> None:
        asked.append(rung)

    options: dict[str, Any] = {"on_eval": on_eval, "eval_at": [1000, 2000, 3000]}
    go("run", tiny_train(), stop_after_tokens=2100, **options)
    assert asked == [1000, 2000]
    go("run", tiny_train(), **options)
    assert asked == [1000, 2000, 3000]


def test_a_checkpoint_follows_each_rung() -> None:
    """What is lost when the process dies after a rung is less than what comes after the rung."""

    def on_eval(rung: int, model: LanguageModel) -> None:
        if rung == 2000:
            raise SystemError("as good as dead")

    options: dict[str, Any] = {"on_eval": on_eval, "eval_at": [1000, 2000]}
    with pytest.raises(SystemError):
        go("run", tiny_train(), **options)
    state = load_checkpoint(Path("run/checkpoint.pt"))
    assert (state["step"], state["passed"]) == (8, [1000])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_writes_a_checkpoint(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"on_eval": lambda rung, model: signal.raise_signal(number), "eval_at": [1000]}
    result = go("run", tiny_train(), **options)
    assert (result.status, result.reason) == ("interrupted", f"{number.name} after step 8 of 30")
    assert load_checkpoint(Path("run/checkpoint.pt"))["step"] == 8
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert go("run", tiny_train(), **options).status == "complete"
    go("whole", tiny_train(), on_eval=lambda rung, model: None, eval_at=[1000])
    assert_same_run("whole", "run")


def test_a_second_ctrl_c_does_not_wait() -> None:
    def on_eval(rung: int, model: LanguageModel) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go("run", tiny_train(), on_eval=on_eval, eval_at=[1000])
    assert read_run("run")["status"] == "interrupted"
    assert go("run", tiny_train()).status == "complete"


# As processes


def wait_for_step(alive: Callable[[], bool], folder: str, step: int) -> None:
    """Until the run has logged this step, or its process has ended."""
    metrics = Path(folder, "metrics.jsonl")  # a line for each step; to read them would take the process's time
    while alive():
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.002)


@pytest.mark.parametrize("changes", [{}, {**MIXTURE, "batch_size": 2}], ids=["text", "mixture"])
def test_kill_9_at_random_moments(changes: dict[str, Any]) -> None:
    """Each time, every file under its own name is whole; in the end, it is the run that nobody killed."""
    spec = tiny_train(checkpoint_seconds=0, tokens=100 * 128, **changes)
    go("whole", spec)
    rng = random.Random(0)
    done = 0
    for _ in range(10):
        process = start(train_there, "killed", dump_yaml(spec), torch.get_num_threads())
        # A few steps further each time, and then anywhere in a step or in the writing of its checkpoint.
        wait_for_step(process.is_alive, "killed", done + rng.randint(3, 6))
        time.sleep(rng.uniform(0, 0.03))
        kill(process)
        lines = read_metrics("killed")
        assert read_run("killed")["status"] == "running"
        assert load_checkpoint(Path("killed/checkpoint.pt"))["step"] <= lines[-1]["step"]
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        done = len(lines)
    assert go("killed", spec).status == "complete"
    assert_same_run("whole", "killed")
    assert not list(Path("killed").glob(".*.tmp"))


def test_kill_9_before_the_first_checkpoint() -> None:
    spec = tiny_train(tokens=100 * 128)
    process = start(train_there, "killed", dump_yaml(spec), torch.get_num_threads())
    wait_for_step(process.is_alive, "killed", 3)
    kill(process)
    assert not Path("killed/checkpoint.pt").exists()
    go("killed", spec)
    go("whole", spec)
    assert_same_run("whole", "killed")


def test_the_command_line_says_what_continues_a_run() -> None:
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    Path("train.yaml").write_text(dump_yaml(tiny_train(tokens=5000 * 128)))
    line = "train model.yaml --train train.yaml --set-train seed=7 --out run --tracking off --device cpu --quiet"
    command = Command(*line.split(), told=Path("told.json"))
    wait_for_step(command.running, "run", 3)
    command.process.terminate()
    code, out, err = command.ends()
    assert code == 130, err
    assert "interrupted: run" in out and "SIGTERM after step" in out
    assert "the same command continues it" in out
    result = read_result("run")
    assert result.status == "interrupted" and result.seed == 7
    assert load_checkpoint(Path("run/checkpoint.pt"))["step"] == result.steps


# Files


def test_a_torn_last_line_and_lines_past_the_checkpoint_are_cut() -> None:
    go("whole", tiny_train())
    go("run", tiny_train(), stop_after_tokens=10 * 128)
    metrics = Path("run/metrics.jsonl")
    ahead = {**read_metrics("run")[-1], "step": 11}
    metrics.write_text(metrics.read_text() + json.dumps(ahead) + "\n" + '{"step": 12, "lo')
    assert [line["step"] for line in read_metrics("run")][-2:] == [10, 11], "a torn line is not read"
    assert [line["step"] for line in keep_metrics(Path("run"), 10)] == list(range(1, 11))
    metrics.write_text(metrics.read_text() + json.dumps(ahead) + "\n" + '{"step": 12, "lo')
    go("run", tiny_train())
    assert_same_run("whole", "run")


def test_what_is_no_line_of_metrics_is_left_out() -> None:
    """A power cut may leave zeros in a file that is appended to; the checkpoint is sound."""
    go("whole", tiny_train())
    go("run", tiny_train(), stop_after_tokens=10 * 128)
    metrics = Path("run/metrics.jsonl")
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines[:3], "\0" * 40, "[1]", '{"loss": 2}', *lines[3:]]) + "\n")
    with pytest.warns(UserWarning, match=r"run/metrics\.jsonl:[456]: no line of metrics; it is left out"):
        go("run", tiny_train())
    assert_same_run("whole", "run")


def test_leftovers_of_a_killed_process_are_removed() -> None:
    go("run", tiny_train(), stop_after_tokens=1000)
    for name in (".checkpoint.pt.123.tmp", ".run.json.7.tmp"):
        Path("run", name).write_bytes(b"half")
    Path("run/.mine.tmp").write_text("keep")
    go("run", tiny_train())
    assert [path.name for path in Path("run").glob(".*.tmp")] == [".mine.tmp"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk is full"), replacing(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk is full")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir() if "file" in p.name] == ["file"]


class Trap:
    """Unpickled, it would touch a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch sprung",))


def test_a_checkpoint_is_never_code() -> None:
    torch.save({"format": 1, "trap": Trap()}, "trap.pt")
    with pytest.raises(UserError, match=r"trap\.pt cannot be read as a checkpoint"):
        load_checkpoint(Path("trap.pt"))
    assert not Path("sprung").exists()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b".", 8_000, 30_000, 66_000])
def test_a_damaged_checkpoint_is_named(damage: bytes | int) -> None:
    """As it was written by somebody else, or cut after so many bytes."""
    go("run", tiny_train(), stop_after_tokens=1000)
    path = Path("run/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)
    with pytest.raises(UserError, match=r"run/checkpoint\.pt cannot be read as a checkpoint .* with --fresh"):
        go("run", tiny_train())
    assert go("run", tiny_train(), resume=False).status == "complete"


def test_a_checkpoint_that_cannot_be_opened_is_no_damaged_one() -> None:
    Path("folder.pt").mkdir()
    with pytest.raises(UserError, match=r"folder\.pt cannot be read: Is a directory"):
        load_checkpoint(Path("folder.pt"))


def test_a_checkpoint_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("miniwin.checkpoint.FORMAT", 3)
        save_checkpoint(Path("newer.pt"), {})
    with pytest.raises(UserError, match=r"newer\.pt is a checkpoint of format 3; this miniwin reads formats 1 and 2"):
        load_checkpoint(Path("newer.pt"))


def test_a_checkpoint_with_other_groups_of_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_decayed(model: torch.nn.Module) -> tuple[list[Any], list[Any]]:
        return list(model.parameters()), []

    with monkeypatch.context() as older:
        older.setattr("miniwin.training.optimizer.split_parameters", all_decayed)
        go("run", tiny_train(), stop_after_tokens=1000)
    with pytest.raises(UserError, match=r"run/checkpoint\.pt was written by a version of miniwin that groups"):
        go("run", tiny_train())
    assert go("run", tiny_train(), resume=False).status == "complete"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"nothing is not a run folder: it has no run\.json; expected a folder that `miniwin train` made"),
        ("{", r"nothing/run\.json is not JSON"),
        ('{"format": 2}', r"nothing/run\.json has format 2; this version of miniwin reads format 1"),
        ('{"format": 1, "train": 5}', r"nothing/run\.json: train: got 5; put back the file that `miniwin train` wrote"),
        ('{"format": 1, "tokens": "many"}', r"nothing/run\.json: tokens: got 'many'; put back the file"),
        ('{"format": 1, "spec_hash": []}', r"nothing/run\.json: spec_hash: got \[\]; put back the file"),
    ],
)
def test_a_folder_that_is_no_run(content: str | None, message: str) -> None:
    if content is not None:
        Path("nothing").mkdir()
        Path("nothing/run.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_run("nothing")


@pytest.mark.parametrize("content", ['{"format": 1}', '{"format": 1, "spec_hash": "a", "train": {}}'])
def test_a_run_that_does_not_say_what_it_is_is_not_continued(content: str) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text(content)
    with pytest.raises(UserError, match=r"run/run\.json does not say what was trained|of another architecture"):
        go("run", tiny_train())
    assert Path("run/run.json").read_text() == content
