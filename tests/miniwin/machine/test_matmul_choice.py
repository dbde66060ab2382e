"""Whose matrix products are taken: measured once, remembered, said otherwise, and kept by a run that goes on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text

import miniwin
from miniwin.blocks import matmul_library as kinds
from miniwin.blocks.matmul_library import MKL, ONEDNN, Product
from miniwin.machine import matmul_choice
from miniwin.machine.devices import multiplies_bfloat16
from miniwin.machine.matmul_choice import FILE, SWITCH, Times
from miniwin.runs import RunResult, read_run
from miniwin.specs import UserError
from miniwin.training.launch import train

CPU = torch.device("cpu")
AMD, INTEL, EMULATED = Times(4.0, 2.0, 1.0), Times(2.0, 2.0, 0.6), Times(2.0, 1.8, 9.0)

needs_onednn = pytest.mark.skipif(ONEDNN not in kinds.offered(), reason="this torch has no oneDNN here")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache folder of its own, with nothing in it or in memory; and where what is remembered lies."""
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(kinds, "offered", lambda: (MKL, ONEDNN))
    matmul_choice._measured.cache_clear()
    return tmp_path / "cache" / FILE


def machine(monkeypatch: pytest.MonkeyPatch, times: Times) -> list[int]:
    """One on which products take these times. How often they were measured."""
    asked: list[int] = []

    def measure() -> Times:
        asked.append(1)
        return times

    monkeypatch.setattr(matmul_choice, "_measure", measure)
    matmul_choice._measured.cache_clear()
    return asked


@pytest.mark.parametrize(
    ("times", "product", "narrow"),
    [
        (AMD, ONEDNN, True),
        (INTEL, MKL, True),
        (EMULATED, MKL, False),
        (Times(2.0, 2.0 / 1.19, 1.2), MKL, False),  # not clearly faster
        (Times(2.0, 3.0, 1.34), MKL, False),
    ],
)
def test_the_clearly_faster_one_is_taken(
    times: Times, product: Product, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, times)
    assert (matmul_choice.chosen(), multiplies_bfloat16(CPU)) == (product, narrow)


def test_it_is_measured_once_and_remembered(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch, AMD)
    for _ in range(3):
        assert matmul_choice.measured() == AMD
        matmul_choice._measured.cache_clear()  # as in another process
    assert len(asked) == 1
    held = json.loads(forgotten.read_text())
    ((key, value),) = held["machines"].items()
    assert value == {"mkl": 4.0, "onednn": 2.0, "bfloat16": 1.0} and held["format"] == 1
    facts = matmul_choice.machine()
    assert f"torch {torch.__version__}" in key and f"{facts['threads']} threads" in key and facts["cpu"] in key
    for change in ({"threads": 97}, {"torch": "9.9"}, {"cpu": "another"}):
        monkeypatch.setattr(matmul_choice, "machine", lambda change=change: {**facts, **change})
        assert matmul_choice.measured() == AMD
    monkeypatch.setattr(matmul_choice, "machine", lambda: facts)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # has oneDNN leave out what the processor has
    matmul_choice.measured()
    assert len(asked) == 5 and len(json.loads(forgotten.read_text())["machines"]) == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[1]",
        '{"format": 2, "machines": {}}',
        '{"format": 1, "machines": 3}',
        '{"format": 1, "machines": {"KEY": {"mkl": 1, "onednn": 9}}}',
        '{"format": 1, "machines": {"KEY": {"mkl": 1, "onednn": 0, "bfloat16": 1}}}',
        '{"format": 1, "machines": {"KEY": {"mkl": NaN, "onednn": 9, "bfloat16": true}}}',
    ],
)
def test_what_is_damaged_is_measured_again(text: str, forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMD)
    matmul_choice.measured()
    (key,) = json.loads(forgotten.read_text())["machines"]
    other = ', "other": {"mkl": 3, "onednn": 2, "bfloat16": 1}}}'
    forgotten.write_text(text.replace("KEY", key).replace("}}}", "}" + other) if "KEY" in text else text)
    asked = machine(monkeypatch, INTEL)
    assert matmul_choice.measured() == INTEL and asked
    kept = json.loads(forgotten.read_text())["machines"]
    assert kept.pop(key)["mkl"] == 2.0
    assert kept == ({"other": {"mkl": 3, "onednn": 2, "bfloat16": 1}} if "KEY" in text else {})


def test_without_a_place_to_remember_it_is_measured_by_each_process(
    forgotten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten.parent.write_text("a file where the folder should be")
    asked = machine(monkeypatch, AMD)
    assert matmul_choice.chosen() == matmul_choice.chosen() == ONEDNN and len(asked) == 1


def test_of_many_processes_one_measures(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one had the lock, and has measured meanwhile."""
    machine(monkeypatch, AMD)
    matmul_choice.measured()
    text = forgotten.read_text()
    forgotten.unlink()

    class Lock:
        def __init__(self, path: Path, timeout: float) -> None:
            assert path.parent == forgotten.parent and 0 < timeout < 60

        def __enter__(self) -> None:
            forgotten.write_text(text)

        def __exit__(self, *given: object) -> None:
            pass

    monkeypatch.setattr("filelock.FileLock", Lock)
    asked = machine(monkeypatch, INTEL)
    assert matmul_choice.measured() == AMD and not asked


@needs_onednn
def test_the_measurement_itself() -> None:
    before = torch.get_num_threads()
    times = matmul_choice._measure()
    assert all(0 < each < 60_000 for each in (times.mkl, times.onednn, times.bfloat16))
    assert torch.get_num_threads() == before


def test_the_environment_says_otherwise(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch, AMD)
    for value in (MKL, ONEDNN):
        monkeypatch.setenv(SWITCH, value)
        assert matmul_choice.chosen() == value
    assert not asked and not forgotten.exists(), "what is said has not to be measured"
    monkeypatch.setenv(SWITCH, "blas")
    message = r"MINIWIN_PRODUCTS: got 'blas' in the environment; expected auto, mkl or onednn"
    for ask in (matmul_choice.chosen, lambda: miniwin.build("miniwin-tiny"), lambda: miniwin.load("miniwin-tiny")):
        with pytest.raises(UserError, match=message):
            ask()
    assert run_cli("explain", "miniwin-tiny", "--backends")[0] == 2
    monkeypatch.setattr(kinds, "offered", lambda: (MKL,))
    monkeypatch.setenv(SWITCH, ONEDNN)
    with pytest.raises(UserError, match="onednn was asked for, and this torch has no oneDNN here; use auto or mkl"):
        matmul_choice.chosen()
    monkeypatch.setenv(SWITCH, "auto")
    assert matmul_choice.chosen() == MKL and not asked


def test_every_front_door_settles_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for times, product in ((AMD, ONEDNN), (INTEL, MKL)):
        machine(monkeypatch, times)
        (tmp_path / "cache" / FILE).unlink(missing_ok=True)
        for model in (miniwin.build("miniwin-tiny"), miniwin.load("miniwin-tiny")):
            assert model.decoder.product == product
            assert (type(model.decoder.attentions[0].q_proj) is kinds.Linear) == (product == ONEDNN)
    decoder = miniwin.load_spec("miniwin-tiny").build()
    assert decoder.product == MKL, "who takes blocks alone has torch's own"


def test_explain_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMD)
    code, out, _ = run_cli("explain", "miniwin-tiny", "--backends")
    assert code == 0 and "chosen   onednn: oneDNN" in out
    assert "measured mkl 4 ms, onednn 2 ms, bfloat16 1 ms" in out
    code, out, _ = run_cli("explain", "miniwin-tiny", "--backends", "--json")
    times = {"mkl": 4.0, "onednn": 2.0, "bfloat16": 1.0}
    assert json.loads(out)["products"] == {"float32 on a cpu": "onednn", "asked": "auto", "milliseconds": times}
    monkeypatch.setattr(kinds, "offered", lambda: (MKL,))
    code, out, _ = run_cli("explain", "miniwin-tiny", "--backends")
    assert code == 0 and "chosen   mkl" in out and "this torch has no oneDNN here" in out


# -- runs


def run(folder: Path, name: str = "run", stop: int | None = None) -> RunResult:
    return train(
        tiny_model(),
        tiny_train(),
        out=folder / name,
        base=folder,
        progress=False,
        tracking="off",
        stop_after_tokens=stop,
    )


def rewrite(folder: Path, **changes: Any) -> None:
    """Fields of run.json; None takes one out."""
    record = json.loads((folder / "run.json").read_text())
    record |= changes
    (folder / "run.json").write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


@needs_onednn
@pytest.mark.parametrize(("first", "later"), [(AMD, INTEL), (INTEL, AMD)])
def test_a_run_goes_on_bit_for_bit_with_the_product_that_it_began_with(
    first: Times, later: Times, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "LEAST", 0)  # its products are small
    write_text(tmp_path)
    began = ONEDNN if first is AMD else MKL
    machine(monkeypatch, first)
    whole = run(tmp_path, "whole")
    assert read_run(whole.folder)["products"] == began
    stopped = run(tmp_path, stop=1024)
    assert stopped.status == "interrupted"
    (tmp_path / "cache" / FILE).unlink()
    machine(monkeypatch, later)
    assert matmul_choice.chosen() != began, "the machine thinks otherwise now"
    ended = run(tmp_path)
    assert ended.status == "complete" and read_run(ended.folder)["products"] == began
    one, other = (load_file(result.folder / "model.safetensors") for result in (whole, ended))
    assert all(torch.equal(one[name], other[name]) for name in one)
    plain = load_file(run(tmp_path, "plain").folder / "model.safetensors")
    assert any(not torch.equal(one[name], plain[name]) for name in one), "the other product rounds otherwise"


def test_runs_of_versions_that_recorded_nothing_go_on_with_torchs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path)
    machine(monkeypatch, INTEL)
    run(tmp_path, stop=1024)
    rewrite(tmp_path / "run", products=None)
    machine(monkeypatch, AMD)
    (tmp_path / "cache" / FILE).unlink()
    assert read_run(run(tmp_path).folder)["products"] == MKL


def test_another_product_than_the_run_began_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path)
    machine(monkeypatch, INTEL)
    run(tmp_path, stop=1024)
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    monkeypatch.setenv(SWITCH, ONEDNN)
    with pytest.raises(
        UserError, match=r"holds a run with the products of mkl, and MINIWIN_PRODUCTS is onednn: .*--fr"
    ):
        run(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == files
    monkeypatch.setenv(SWITCH, MKL)
    assert run(tmp_path).status == "complete"
    monkeypatch.setenv(SWITCH, ONEDNN)
    assert run(tmp_path).status == "complete", "nothing is trained any more"


def test_a_product_that_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path)
    machine(monkeypatch, INTEL)
    run(tmp_path, stop=1024)
    rewrite(tmp_path / "run", products=ONEDNN)
    monkeypatch.setattr(kinds, "offered", lambda: (MKL,))
    with pytest.warns(UserWarning, match="began with the products of onednn, which this torch does not have; it goes"):
        ended = run(tmp_path)
    assert ended.status == "complete" and read_run(ended.folder)["products"] == MKL


def test_on_a_gpu_there_is_nothing_to_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch, AMD)
    cuda = torch.device("cuda", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert matmul_choice.of_run(None, cuda, tmp_path, False) is None
        assert matmul_choice.of_run({"products": MKL}, cuda, tmp_path, False) == MKL
        assert not asked
        assert matmul_choice.of_run({"products": None}, CPU, tmp_path, False) == ONEDNN, (
            "it comes to a CPU for the first time"
        )


def test_onednn_and_compiled_layers_are_refused_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, AMD)
    assert matmul_choice.of_run(None, CPU, tmp_path, compiled=True) == ONEDNN, "of the head and its loss"
    monkeypatch.setenv(SWITCH, ONEDNN)
    write_text(tmp_path)
    with pytest.raises(
        UserError, match=r"MINIWIN_PRODUCTS is onednn, but compiled layers \(compile: true\) use torch's"
    ):
        train(tiny_model(), tiny_train(compile=True), out=tmp_path / "run", base=tmp_path, progress=False)
    assert not (tmp_path / "run" / "run.json").exists()
