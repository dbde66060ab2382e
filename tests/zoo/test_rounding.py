"""Entries whose weights are rounded: they are measured, checked and loaded as they are stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import tiny_model, tiny_train, write_text
from typer.testing import CliRunner
from zoo_runs import make_run

import miniwin
from miniwin.commands.zoo import app
from miniwin.evaluation import evaluate
from miniwin.evaluation.suite.run import run_suite
from miniwin.specs import SuiteSpec, UserError, parse_spec
from miniwin.zoo import ZooError, add, resolve, verify

EXAMPLES = {"source": "examples", "task": {"type": "which-first", "num_marks": 2, "num_queries": 1}}


@pytest.fixture(autouse=True)
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.chdir(tmp_path)


def trained(out: str, **changed: Any) -> Path:
    miniwin.train(tiny_model(), tiny_train(**changed), out=out, progress=False, tracking="off", device="cpu")
    return Path(out)


def added(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["add", *arguments, "--name", "small", "--dtype", "bfloat16"])
    assert result.exit_code == 0, result.output
    entry = resolve("small")
    assert verify(entry) == []
    assert "| Parameters | " in entry.card and ", stored as bfloat16 |" in entry.card
    return entry.ref


def test_text_is_measured_with_the_weights_that_are_stored(tmp_path: Path) -> None:
    write_text(tmp_path)
    run = trained("run")
    ref = added(str(run), "--lengths", "32,64")
    stored = load_file(resolve("small").folder / "model.safetensors")
    for name, tensor in load_file(run / "model.safetensors").items():
        assert torch.equal(stored[name], tensor.to(torch.bfloat16))
    assert {p.dtype for p in miniwin.load(ref).parameters()} == {torch.bfloat16}
    found = evaluate(miniwin.load("run", dtype="bfloat16"), lengths=[32, 64], recall=False, speed=False).to_dict()[
        "bits_per_byte"
    ]
    assert resolve("small").metrics["bits_per_byte"] == {str(n): bits for n, bits in found.items()}
    kept = load_file(run / "model.safetensors").values()
    assert {tensor.dtype for tensor in kept} == {torch.float32}, "the run stays as it was"


def test_tasks_are_asked_with_the_weights_that_are_stored() -> None:
    ref = added(str(trained("run", data=EXAMPLES)), "--lengths", "32")
    assert resolve(ref).suite is not None


def test_what_cannot_be_rounded_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(ZooError, match="expected float32, bfloat16, float16, got 'int4'"):
        add(run, name="small", dtype="int4")
    entry = add(run, name="small")
    with pytest.raises(ZooError, match="an entry keeps its weights under a new card"):
        add(entry.folder, name="other", dtype="bfloat16")
    with pytest.raises(UserError, match=r"elsewhere is not a run folder"):
        add(tmp_path / "elsewhere", name="other", dtype="float16")


def test_a_weight_that_is_too_large_is_named_with_its_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    weights = load_file(run / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] = -1e6
    save_file(weights, run / "model.safetensors")
    message = (
        f"tensor {name} of {run / 'model.safetensors'} is too large for float16: it holds 1e+06, and the largest "
        "float16 is 65504; choose another --dtype, or leave it out"
    )
    with pytest.raises(ZooError, match=re.escape(message)):
        add(run, name="small", dtype="float16")
    for more in ((), ("--no-evaluate",)):
        result = CliRunner().invoke(app, ["add", str(run), "--name", "small", "--dtype", "float16", *more])
        assert str(result.exception) == message
    add(run, name="small", dtype="bfloat16")


@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn, None])
def test_only_weights_that_could_be_added_as_they_are_get_rounded(tmp_path: Path, stored: torch.dtype | None) -> None:
    run = make_run(tmp_path / "run")
    file = run / "model.safetensors"
    if stored is None:
        file.write_bytes(file.read_bytes()[:-100])
    else:
        save_file({name: tensor.to(stored) for name, tensor in load_file(file).items()}, file)
    said = {None: "is not a safetensors file: "}.get(stored, f"holds {str(stored).removeprefix('torch.')}; expected")
    for dtype in (None, "bfloat16"):
        with pytest.raises(ZooError, match=f"^{run}: model.safetensors: .*{said}"):
            add(run, name="small", dtype=dtype)


def test_a_result_of_other_weights_is_told_how_to_measure_the_rounded_ones(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    asked = {"lengths": [32], "examples": 2, "tasks": [{"task": EXAMPLES["task"]}]}
    suite = parse_spec({"kind": "suite", "format": 1, "name": "tiny", **asked}, "suite")
    assert isinstance(suite, SuiteSpec)
    saved = run_suite(run, suite, out=tmp_path / "saved")
    command = ("add", str(run), "--name", "small", "--dtype", "bfloat16", "--no-evaluate", "--suite-result")
    said = r"; measure these, rounded to bfloat16 as well: miniwin eval MODEL --suite NAME --dtype bfloat16$"
    with pytest.raises(ZooError, match=said):
        add(run, name="small", suite=saved, dtype="bfloat16")
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "saved")])
    assert re.search(said, str(refused.exception))
    # What the message says is what works.
    found = run_suite(miniwin.load(run, dtype="bfloat16"), suite, out=tmp_path / "rounded")
    taken = CliRunner().invoke(app, [*command, str(tmp_path / "rounded")])
    assert taken.exit_code == 0, taken.output
    kept = resolve("small").suite
    assert kept is not None and kept.model.weights == found.model.weights
    with pytest.raises(ZooError, match="measure these, as they were saved, without --dtype and --quantize"):
        add(run, name="small", suite=found)
