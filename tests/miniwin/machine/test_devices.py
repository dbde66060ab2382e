"""`dtype: auto`: what it comes to, that a run and a study keep it, and that what is said is taken as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import tiny_model, tiny_train, write_text

from miniwin.machine import devices
from miniwin.machine.devices import multiplies_bfloat16, settled
from miniwin.machine.matmul_choice import Times
from miniwin.runs import RunResult, read_run
from miniwin.search.creation import create_study
from miniwin.specs import TrainSpec, UserError, load_train_spec, parse_spec
from miniwin.training.launch import train

CPU = torch.device("cpu")


def able(monkeypatch: pytest.MonkeyPatch, times: float = 0.5) -> None:
    """A processor that is so many times as fast at products of bfloat16; by default it emulates them."""
    monkeypatch.setattr(devices, "measured", lambda: Times(mkl=6.0, onednn=3.0, bfloat16=3.0 / times))


def test_auto_is_the_default_and_goes_by_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainSpec.model_fields["dtype"].default == "auto"
    for times, expected in ((4.0, "bfloat16"), (1.9, "bfloat16"), (1.2, "float32"), (0.5, "float32")):
        able(monkeypatch, times)
        assert settled(tiny_train(dtype="auto"), CPU).dtype == expected
        assert settled(tiny_train(dtype="float32"), CPU).dtype == "float32"
        assert settled(tiny_train(dtype="auto"), CPU, "float32").dtype == "float32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_on_cuda_the_generation_decides(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert multiplies_bfloat16(torch.device("cuda", 0)) is expected


def test_other_devices_train_in_float32() -> None:
    assert not multiplies_bfloat16(torch.device("mps"))


def run(folder: Path, **changes: object) -> RunResult:
    stop = changes.pop("stop", None)
    spec = tiny_train(**changes)
    return train(
        tiny_model(), spec, out=folder / "run", base=folder, progress=False, tracking="off", stop_after_tokens=stop
    )


def test_a_run_goes_on_in_the_precision_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path)
    able(monkeypatch, 4.0)
    begun = run(tmp_path, dtype="auto", stop=256)
    assert (begun.status, begun.dtype) == ("interrupted", "bfloat16")
    assert load_train_spec(begun.folder / "train.yaml").dtype == "bfloat16"
    able(monkeypatch)
    ended = run(tmp_path, dtype="auto")
    assert (ended.status, ended.dtype) == ("complete", "bfloat16")
    assert read_run(ended.folder)["train"]["dtype"] == "bfloat16"
    with pytest.raises(UserError, match=r"train\.dtype: 'bfloat16' there, 'float32' now"):
        run(tmp_path, dtype="float32")


def test_auto_trains_as_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path)
    able(monkeypatch)
    plain = run(tmp_path, dtype="auto")
    said = train(tiny_model(), tiny_train(), out=tmp_path / "said", base=tmp_path, progress=False, tracking="off")
    assert plain.final_loss == said.final_loss


def test_a_study_settles_it_once_for_all_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_spec(
        yaml.safe_load(
            """
            {kind: search, format: 1, name: s, base: miniwin-1m, train: tiny, variables: {w: {choice: [16, 32]}},
             set: {blocks.S.attention.window: w}, objectives: [minimize loss@256],
             budget: {trials: 1, tokens_per_trial: 10000}}
            """
        ),
        "search",
    )
    able(monkeypatch, 4.0)
    assert create_study(spec, tmp_path, out=tmp_path / "study").train.dtype == "bfloat16"
    able(monkeypatch)
    assert create_study(spec, tmp_path, out=tmp_path / "study").train.dtype == "bfloat16", "opened elsewhere"
    assert create_study(spec, tmp_path, out=tmp_path / "other").train.dtype == "float32"


def test_a_device_that_is_not_there_is_refused() -> None:
    assert devices.find_device("cpu") == CPU
    with pytest.raises(UserError, match="device: got 'gpu'; expected cpu, cuda, or cuda:1 and so on"):
        devices.find_device("gpu")
    with pytest.raises(UserError, match=r"device: got '1\.5'; expected cpu"):
        devices.find_device(1.5)  # type: ignore[arg-type]
    for name in ("vulkan", "hpu"):
        with pytest.raises(UserError, match=rf"device: {name} cannot be used on this machine \(.+\); use cpu"):
            devices.find_device(name)
    with pytest.raises(UserError, match="device: got meta, whose tensors hold no numbers; use cpu"):
        devices.find_device("meta")


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(size: int, device: torch.device) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal\nGPU device may be out of range")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(UserError, match=r"cuda:9 cannot be used .* \(CUDA error: invalid device ordinal\); use cpu"):
        devices.find_device("cuda:9")


def test_a_numbered_cpu_is_the_cpu() -> None:
    assert devices.find_device("cpu:3") == CPU
