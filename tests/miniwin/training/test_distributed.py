"""Training by two processes under torchrun, on CPUs: the same run as one process makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from paths import ROOT
from tiny_runs import MIXTURE, tiny_model, tiny_train, write_text
from torch import nn

from miniwin.runs import BEST, read_evaluations, read_metrics, read_result
from miniwin.specs import UserError, dump_yaml
from miniwin.training.distributed import Group, join, speaks
from miniwin.training.launch import train

SCRIPT = """
import sys
from miniwin.training.launch import train
def on_eval(rung, model):
    open("asked.txt", "a").write(f"{rung}\\n")
for out in sys.argv[1:]:
    for stop, status in (600, "interrupted"), (None, "complete"):
        result = train(out + ".model.yaml", out + ".yaml", out=out, progress=False, tracking="off", device="cpu",
                       stop_after_tokens=stop, on_eval=on_eval, eval_at=[1000])
        assert (str(result.folder), result.status) == (out, status), result
"""


def torchrun(folder: Path, *arguments: str, processes: int = 2) -> None:
    (folder / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "script.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *arguments], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            _, said = run.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            run.terminate()  # torchrun then ends its processes
            raise
    assert run.returncode == 0, said[-3000:]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path)
    return tmp_path


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder)]


def test_two_processes_make_the_run_of_one(place: Path) -> None:
    """Dense and a mixture of experts (some of whom nobody may choose), interrupted once, and continued."""
    moe = {
        "type": "moe",
        "num_experts": 4,
        "experts_per_token": 1,
        "expert": {"type": "swiglu", "intermediate_size": 16},
        "router": {"type": "softmax-topk", "normalise": True},
        "balance_loss": 0.0,
    }
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    cases: dict[str, tuple[Any, Any]] = {
        "dense": (
            tiny_model(),
            tiny_train(gradient_accumulation=2, eval={"every": 1000, "tokens": 100, "keep_best": "minimize loss@32"}),
        ),
        "experts": (
            tiny_model(blocks={**blocks, "G": {**blocks["G"], "mlp": moe}}),
            tiny_train(optimizer={"type": "muon", "lr": 3e-3}, tokens=12 * 128),
        ),
        "mixture": (tiny_model(), tiny_train(**MIXTURE, tokens=8 * 256)),
    }
    for name, (model, spec) in cases.items():
        (place / f"{name}.yaml").write_text(dump_yaml(spec))
        (place / f"{name}.model.yaml").write_text(dump_yaml(model))
    torchrun(place, *cases)
    assert (place / "asked.txt").read_text().split() == ["1000"] * 3, "one process is asked, once a run"
    for name, (model, spec) in cases.items():
        one = train(model, spec, out=place / f"{name}-alone", base=place, progress=False, tracking="off", device="cpu")
        assert read_result(place / name).status == "complete" and (place / name / "model.safetensors").exists()
        assert losses(place / name) == pytest.approx(losses(one.folder), rel=2e-3)
        measured = [read_evaluations(folder) for folder in (place / name, one.folder)]
        assert [line["step"] for line in measured[0]] == [line["step"] for line in measured[1]], "by one process only"
        for mine, alone in zip(*measured, strict=True):
            assert mine["eval"]["loss@32"]["value"] == pytest.approx(alone["eval"]["loss@32"]["value"], rel=2e-3)
        assert (place / name / BEST).exists() == (name == "dense")
        assert losses(place / name)[:3] == pytest.approx(losses(one.folder)[:3], rel=1e-5)
        norms = [[line["grad_norm"] for line in read_metrics(folder)][:3] for folder in (place / name, one.folder)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        parts = [read_metrics(folder)[0].get("losses", {}) for folder in (place / name, one.folder)]
        assert parts[0] == pytest.approx(parts[1], rel=1e-4)


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(UserError, match="batch_size is 4, and 3 processes share it; expected a multiple of 3"):
        Group(0, 3).check(4)


@pytest.mark.parametrize(
    ("device", "rank", "own"),
    [(None, 1, "cuda:1"), ("cuda", 1, "cuda:1"), ("cuda", 0, "cuda:0"), ("cpu", 1, "cpu"), ("cpu:3", 1, "cpu")],
)
def test_each_process_takes_its_own_device(
    device: str | None, rank: int, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun starts them on a machine with two CUDA devices, which is made up."""
    made: list[Any] = []
    launched(monkeypatch, rank, processes=2, devices=2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: made.append((backend, timeout)))
    group = join(device)
    assert (str(group.device), group.rank, group.size) == (own, rank, 2)
    (backend, patience), cuda = made[-1], own != "cpu"
    assert backend == ("nccl" if cuda else "gloo") and patience.days > 1 and len(made) == 1 + cuda


def launched(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int, devices: int) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr("miniwin.training.distributed.atexit.register", lambda function: None)
    for name, value in {"is_torchelastic_launched": True, "get_rank": rank, "get_world_size": processes}.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)


def test_devices_that_cannot_be_shared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, rank=1, processes=2, devices=1)
    with pytest.raises(
        UserError, match="got cuda:0 for 2 processes; expected cuda: each process takes a device of its own"
    ):
        join("cuda:0")
    with pytest.raises(UserError, match="2 processes were started on a machine with 1 CUDA devices"):
        join(None)
    assert not speaks()


def test_rows_are_shared_out() -> None:
    batch = torch.arange(12).view(6, 2)
    assert torch.equal(torch.cat([Group(rank, 3).rows(batch) for rank in range(3)]), batch)


def test_alone_nothing_changes() -> None:
    group = join(None)
    assert group.leads and group.size == 1 and speaks()
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    group.average_gradients([parameter, nn.Parameter(torch.ones(1))])
    group.equalise(nn.Linear(2, 2))
    assert parameter.grad.tolist() == [3.0, 3.0] and group.share("x") == "x"
    assert group.first_said(None) is None and group.first_said("SIGINT") == "SIGINT"
    assert float(group.mean(torch.tensor(2.0))) == 2.0
