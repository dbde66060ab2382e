"""An adapter's folder: peft reads it, it can be put on its own model, and on no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text

import miniwin
from miniwin.specs import UserError
from miniwin.training.launch import train

IDS = torch.arange(60).unsqueeze(0)
ADAPTER = Path("run/adapter")
CONFIG, TENSORS, BASE = (ADAPTER / n for n in ("adapter_config.json", "adapter_model.safetensors", "base.json"))
DORA = {"r": 3, "use_dora": True, "lora_dropout": 0.1, "target_modules": ["q_proj", "layers.0.mlp.*"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a run with an adapter."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIWIN_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        write_text(folder)
        go("base")
        go("run", from_="base", lora=DORA)
    return folder


@pytest.fixture(autouse=True)
def _folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.chdir(tmp_path)


def go(out: str, from_: str | None = None, model: Any = None, **changes: Any) -> None:
    spec = tiny_train(**{"tokens": 640, **changes})
    options: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu"}
    train(model or tiny_model(), spec, out=out, from_=from_, **options)


def test_peft_reads_it() -> None:
    from peft import PeftModel

    base = miniwin.load("base")
    theirs = PeftModel.from_pretrained(base.decoder, str(ADAPTER)).merge_and_unload().eval()(IDS)
    assert torch.equal(theirs, miniwin.load("run")(IDS))
    config = json.loads(CONFIG.read_text())
    assert (config["peft_type"], config["r"], config["use_dora"]) == ("LORA", 3, True)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert all(name.startswith("base_model.model.layers.") for name in load_file(TENSORS))


def test_it_fits_the_same_weights_in_any_file() -> None:
    """A copy, an entry of the zoo; not the weights in fewer bits, which are others."""
    from miniwin.zoo import add

    add("base", name="mine")
    wanted = miniwin.load("run")(IDS)
    assert torch.equal(miniwin.load("mine", adapter=ADAPTER)(IDS), wanted)
    narrow = miniwin.load("base", adapter=str(ADAPTER), dtype="bfloat16").decoder.state_dict()
    assert {tensor.dtype for tensor in narrow.values()} == {torch.bfloat16}
    save_file({n: t.bfloat16() for n, t in load_file("base/model.safetensors").items()}, "base/model.safetensors")
    with pytest.raises(UserError, match="is an adapter for other weights of 'tiny-test'"):
        miniwin.load("base", adapter=ADAPTER)
    go("narrow", from_="base", lora=DORA)
    assert torch.equal(miniwin.load("base", adapter="narrow/adapter")(IDS), miniwin.load("narrow")(IDS))


def test_an_adapter_for_another_model_is_refused() -> None:
    go("other", seed=3)
    go("wider", model=tiny_model(hidden_size=64))
    for ref, message in (
        ("other", r"run/adapter is an adapter for other weights of 'tiny-test' \(sha256 .* of all tensors; other has"),
        ("run", "is an adapter for other weights"),
        (
            "wider",
            r"is an adapter for another model \('tiny-test', .*; wider is 'tiny-test', .*; exp",
        ),
    ):
        with pytest.raises(UserError, match=message):
            miniwin.load(ref, adapter=ADAPTER)
    Path("model.yaml").write_text(Path("base/model.yaml").read_text())
    with pytest.raises(UserError, match=r"adapter: model.yaml is a model spec, which has no weights"):
        miniwin.load("model.yaml", adapter=ADAPTER)


def cut(path: Path, size: int) -> Callable[[], object]:
    return lambda: path.write_bytes(path.read_bytes()[:size])


def changed(path: Path, **fields: Any) -> Callable[[], object]:
    return lambda: path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[], object]:
    return lambda: save_file(change(load_file(TENSORS)), TENSORS)


FIRST = "base_model.model.layers.0.attention.q_proj.lora_A.weight"
DAMAGE: dict[str, tuple[Callable[[], object], str]] = {
    "no folder": (
        lambda: ADAPTER.rename("elsewhere"),
        r"base.json cannot be read \(No such file or directory\); exp",
    ),
    "no tensors": (TENSORS.unlink, r"adapter_model.safetensors cannot be read as safetensors"),
    "cut tensors": (cut(TENSORS, 2000), r"adapter_model.safetensors cannot be read as safetensors"),
    "no header": (cut(TENSORS, 3), r"adapter_model.safetensors cannot be read as safetensors"),
    "cut base": (cut(BASE, 20), r"base.json is not JSON"),
    "base of a list": (lambda: BASE.write_text("[]"), r"base.json holds no object"),
    "base without hash": (changed(BASE, weights=None), "base.json does not say whose adapter this is"),
    "newer base": (changed(BASE, format=2), "base.json does not say whose adapter this is"),
    "cut config": (cut(CONFIG, 30), r"adapter_config.json is not JSON"),
    "rank 0": (changed(CONFIG, r=0), r"adapter_config.json: r: Input should be greater than or equal to 1"),
    "another rank": (
        changed(CONFIG, r=4),
        r"lora_A.weight: got torch.float32 \(3, 32\); expected floats \(4, 32\)",
    ),
    "a huge rank": (changed(CONFIG, r=10**9), r"lora.r: got 1000000000; layers"),
    "another kind": (changed(CONFIG, peft_type="IA3"), r"adapter_config.json: peft_type: got 'IA3'; expected 'LORA'"),
    "ranks of its own": (
        changed(CONFIG, rank_pattern={"q_proj": 2}),
        "rank_pattern: got .* only adapters as `min",
    ),
    "other maps": (changed(CONFIG, target_modules=["k_proj"]), "name different tensors"),
    "not dora": (changed(CONFIG, use_dora=False), r"name different tensors \(layers.0.attention.q_proj.lora_magnitude"),
    "a tensor less": (tensors(lambda t: {n: v for n, v in t.items() if n != FIRST}), "name different tensors"),
    "integers": (tensors(lambda t: {**t, FIRST: t[FIRST].int()}), r"got torch.int32 \(3, 32\); expected floats"),
    "no numbers": (
        tensors(lambda t: {**t, FIRST: t[FIRST] * float("nan")}),
        "lora_A.weight holds what is no number",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_adapter_is_refused(name: str) -> None:
    damage, message = DAMAGE[name]
    damage()
    with pytest.raises(UserError, match=message):
        miniwin.load("base", adapter=ADAPTER)


def test_merged_by_a_command() -> None:
    code, out, err = run_cli("merge", "base", "--adapter", str(ADAPTER), "--to", "merged")
    assert code == 0, err
    assert "merged base with run/adapter" in out
    assert torch.equal(miniwin.load("merged")(IDS), miniwin.load("run")(IDS))
    record = json.loads(Path("merged/import.json").read_text())
    assert record["kind"] == "merge" and record["source"] == "base"
    go("on", from_="merged", tokens=0)
    assert torch.equal(miniwin.load("on")(IDS), miniwin.load("run")(IDS))
    code, out, err = run_cli("merge", "base", "--adapter", str(ADAPTER), "--to", "merged")
    assert code == 2 and "merged" in err
    go("other", seed=3)
    code, out, err = run_cli("merge", "other", "--adapter", str(ADAPTER), "--to", "never")
    assert (code, out) == (2, "") and "adapter for other weights" in err and not Path("never").exists()
