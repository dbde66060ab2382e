"""Matrices in int8: an import that keeps them so computes what `--quantize int8` makes of the float32 import."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import toy_folder, use_toys
from gguf_files import Plain
from safetensors.torch import load_file, save_file
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text

import miniwin
from miniwin.blocks.int8.weight import Int8Weight
from miniwin.language_model import LanguageModel
from miniwin.quantize import matrices, quantize
from miniwin.specs import UserError
from miniwin.training.launch import train
from miniwin.zoo.exporting import export_model
from miniwin.zoo.importing import import_model

IDS = torch.arange(24).unsqueeze(0)  # more tokens than the kernel for few takes


@pytest.fixture(params=["hf", "gguf"])
def both(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The same model imported in float32 and in int8: from fused tensors, and from pieces."""
    if request.param == "hf":
        use_toys(monkeypatch)
        source = toy_folder(tmp_path / "toy")
    else:
        pytest.importorskip("gguf")
        source = tmp_path / "small.gguf"
        source.write_bytes(Plain().bytes())
    import_model(source, tmp_path / "wide")
    made = import_model(source, tmp_path / "int8", dtype="int8")
    assert made.record["dtype"] == "int8" and list(made.record["converted"]) == ["float32"]
    return tmp_path / "wide", tmp_path / "int8"


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    """The weights, of a matrix in eight bits its integers and scales."""
    found = {}
    for name, one in model.decoder.named_parameters():
        found |= (
            {f"{name} values": one.values8, f"{name} scale": one.scale} if isinstance(one, Int8Weight) else {name: one}
        )
    return found


@torch.inference_mode()
def test_it_computes_what_quantising_the_import_gives(both: tuple[Path, Path]) -> None:
    wide, int8 = both
    expected, got = quantize(miniwin.load(wide)), miniwin.load(int8)
    one, other = weights(expected), weights(got)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert all(isinstance(module.weight, Int8Weight) for _, module in matrices(got.decoder))
    assert torch.equal(got(IDS), expected(IDS)) and got.dtype == torch.float32
    assert not torch.equal(got(IDS), miniwin.load(wide)(IDS))
    prompt = [3, 1, 4]
    assert got.generate(prompt, max_new_tokens=9, temperature=0) == expected.generate(
        prompt, max_new_tokens=9, temperature=0
    )
    narrow = miniwin.load(int8, dtype="bfloat16")
    assert narrow.dtype == torch.bfloat16 and isinstance(narrow.decoder.embed_tokens.weight, Int8Weight)
    assert torch.equal(weights(narrow)["embed_tokens.weight values"], one["embed_tokens.weight values"])
    assert (narrow(IDS) - got(IDS)).abs().mean() < 0.1 * got(IDS).std()


def test_the_file_is_one_that_the_library_reads(both: tuple[Path, Path]) -> None:
    held = load_file(both[1] / "model.safetensors")
    eight = {name for name, tensor in held.items() if tensor.dtype == torch.int8}
    assert eight and {held[f"{name}_scale"].dtype for name in eight} == {torch.bfloat16}
    assert {held[name].dtype for name in held if name not in eight and not name.endswith("_scale")} == {torch.float32}
    assert os.path.getsize(both[1] / "model.safetensors") < os.path.getsize(both[0] / "model.safetensors")


def test_a_run_begins_with_the_widened_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    mlp = {"type": "swiglu", "intermediate_size": 32}
    layer = {"attention": {"num_heads": 2, "num_kv_heads": 1, "window": None, "position": {"type": "rope"}}, "mlp": mlp}
    how: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu"}
    train(tiny_model(blocks={"G": layer}, pattern="G"), tiny_train(tokens=640), out="first", **how)
    export_model("first", "exported", "stock")
    import_model("exported", "int8", dtype="int8")
    code, out, err = run_cli("eval", "int8", "--data", "text.txt", "--lengths", "64", "--no-speed", "--json", "-")
    assert code == 0, err
    code, again, err = run_cli(
        *("eval", "first", "--data", "text.txt", "--lengths", "64", "--no-speed", "--quantize", "int8", "--json", "-")
    )
    assert code == 0 and json.loads(out)["bits_per_byte"] == json.loads(again)["bits_per_byte"], err
    train(miniwin.load("int8").spec, tiny_train(tokens=0), out="second", from_="int8", **how)
    assert torch.equal(miniwin.load("second")(IDS), miniwin.load("int8")(IDS))
    assert not any(isinstance(one, Int8Weight) for one in miniwin.load("second").parameters())


def test_an_export_has_the_widened_matrices(both: tuple[Path, Path], tmp_path: Path) -> None:
    export_model(str(both[1]), tmp_path / "custom", "custom")
    held, ours = load_file(tmp_path / "custom" / "model.safetensors"), miniwin.load(both[1]).decoder.state_dict()
    for name, tensor in ours.items():
        expected = tensor.wide() if isinstance(tensor, Int8Weight) else tensor
        assert torch.equal(held[f"decoder.{name}"], expected), name


@pytest.mark.parametrize(
    "change",
    [
        lambda scale: scale.float(),
        lambda scale: scale[:-1].clone(),
        lambda scale: scale.unsqueeze(1).clone(),
    ],
)
def test_scales_that_do_not_fit(both: tuple[Path, Path], change: object) -> None:
    path = both[1] / "model.safetensors"
    held = load_file(path)
    held["embed_tokens.weight_scale"] = change(held["embed_tokens.weight_scale"])  # type: ignore[operator]
    save_file(held, path)
    with pytest.raises(UserError, match=r"embed_tokens\.weight_scale is .* in int8; expected a scale for each row"):
        miniwin.load(both[1])


def test_scales_that_are_missing(both: tuple[Path, Path]) -> None:
    path = both[1] / "model.safetensors"
    held = load_file(path)
    del held["embed_tokens.weight_scale"]
    save_file(held, path)
    with pytest.raises(UserError, match=r"embed_tokens\.weight holds int8; expected float32 or"):
        miniwin.load(both[1])
