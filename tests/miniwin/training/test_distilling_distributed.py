"""Learning from a teacher in several processes: the run that one process makes, with each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forked import together
from safetensors.torch import load_file
from tiny_runs import MIXTURE, tiny_model, tiny_train, write_text

from miniwin.runs import RunResult, read_metrics
from miniwin.specs import UserError
from miniwin.training.launch import train

RATE: dict[str, Any] = {"optimizer": {"lr": 1e-3}}
RUNS: dict[str, dict[str, Any]] = {
    "kl": {"distill": {"teacher": "teacher", "temperature": 2, "cache": "states"}, "tokens": 640, **RATE},
    "hidden": {"distill": {"teacher": "teacher", "loss": "hidden"}, "tokens": 640, **RATE},
    "mixture": {
        "distill": {"teacher": "teacher", "loss": "attention_output", "weight": 0.9},
        **{**MIXTURE, **RATE},
        "packing": "documents",
        "tokens": 512,
        "gradient_accumulation": 2,
    },
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "5")
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    go("teacher", seed=3, tokens=512)


def go(out: str, distributed: Any = "ddp", stop: int | None = None, **changes: Any) -> RunResult:
    options: dict[str, Any] = {"base": ".", "progress": False, "tracking": "off", "device": "cpu"}
    spec = tiny_train(**changes)
    return train(tiny_model(), spec, out=out, distributed=distributed, stop_after_tokens=stop, **options)


def in_two_processes(engine: str) -> None:
    for name, changes in RUNS.items():
        go(name, engine, stop=256, **changes)
        go(name, engine, **changes)
    alone = {"distill": {"teacher": "teacher", "loss": "hidden", "weight": 1}}
    with pytest.raises(UserError, match=r"distill\.weight: got 1 with loss: hidden in 2 processes"):
        go("refused", engine, **alone)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_several_processes_learn_what_one_learns(engine: str) -> None:
    together(in_two_processes, engine)
    for name, changes in RUNS.items():
        go(f"{name}-alone", **changes)
        one, other = (load_file(f"{folder}/model.safetensors") for folder in (name, f"{name}-alone"))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        for mine, theirs in zip(read_metrics(name), read_metrics(f"{name}-alone"), strict=True):
            for key in ("loss", "distillation_loss", "grad_norm"):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-3), (name, key)
    assert not Path("refused/run.json").exists()
