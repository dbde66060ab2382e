"""Entries whose weights are rounded: they are measured, checked and loaded as they are stored."""

from __future__ import annotations

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
from miniwin.specs import UserError
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
    weights = load_file(run / "model.safetensors")
    weights[next(iter(weights))].fill_(1e6)
    save_file(weights, run / "model.safetensors")
    with pytest.raises(ZooError, match="holds NaN or infinity"):
        add(run, name="other", dtype="float16")
    with pytest.raises(UserError, match=r"elsewhere is not a run folder"):
        add(tmp_path / "elsewhere", name="other", dtype="float16")
