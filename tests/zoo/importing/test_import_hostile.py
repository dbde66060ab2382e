"""Importing what is broken or means harm: one clear error, nothing run, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import shard, toy_folder, toy_tensors, use_toys, write_index
from safetensors.torch import load_file, save_file
from tiny import run_cli

import miniwin
from miniwin.specs import UserError
from miniwin.zoo.importing import import_model

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toys(monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return toy_folder(tmp_path / "toy")


def refused(source: Path, message: str, **options: Any) -> None:
    """The import is one UserError of one line, and leaves no trace beside the source, even of the parents of --to."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        import_model(source, source.parent / "new" / "deep" / "out", **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900, str(caught.value)
    assert sorted(source.parent.rglob("*")) == before


# -- code in a pickle


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def as_zip(path: Path, harm: Harm) -> None:
    torch.save({**toy_tensors(), "x": harm}, path)


def as_legacy(path: Path, harm: Harm) -> None:
    torch.save({**toy_tensors(), "x": harm}, path, _use_new_zipfile_serialization=False)


def as_pickle(path: Path, harm: Harm) -> None:
    path.write_bytes(pickle.dumps(harm, protocol=2))


def as_compressed(path: Path, harm: Harm) -> None:
    """An archive that hides the pickle from a scanner of stored members."""
    as_zip(path, harm)
    with zipfile.ZipFile(path) as old:
        members = {item.filename: old.read(item) for item in old.infolist()}
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)


@pytest.mark.parametrize("write", [as_zip, as_legacy, as_pickle, as_compressed])
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".pt"])
def test_code_in_a_pickle_does_not_run(
    tmp_path: Path, write: Callable[[Path, Harm], None], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # somebody's habit must not open the door
    path, harmed = tmp_path / f"model{suffix}", tmp_path / "harmed"
    write(path, Harm(harmed))
    reason = r"code in the file would have to run \(\w+\.mkdir\), which is never done"
    refused(path, reason if write is not as_compressed else "a compressed archive", family="minimind")
    assert not harmed.exists()
    if write is as_pickle:
        pickle.loads(path.read_bytes())
        assert harmed.exists(), "the file would have done harm, had it been unpickled"


# -- other checkpoint files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], r"holds a list; expected a flat dictionary of tensors"),
        (torch.ones(2), r"holds a Tensor; expected a flat dictionary"),
        ({}, r"holds an empty dictionary"),
        ({"model": {"a": {"b": torch.ones(2)}}}, r"'a' holds a dict; expected a flat dictionary of tensors"),
        ({"a": torch.ones(2), "step": 3}, r"'step' holds a int; expected a flat dictionary"),
        ({3: torch.ones(2)}, r"3 holds a Tensor; expected a flat"),
        ({"a": torch.ones(2), "module.a": torch.ones(2)}, r"holds a twice, with and without module\."),
        ({"a": torch.ones(1).expand(2**40)}, r"a has shape \(1099511627776,\), more than the file holds for it"),
        ({"a": torch.eye(3).to_sparse()}, r"a is sparse, quantised or without data"),
        ({"a": torch.ones(2, device="meta")}, r"a is sparse, quantised or without data"),
    ],
)
def test_checkpoints_that_are_not_flat_tensors(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "m.pth")
    refused(tmp_path / "m.pth", message, family="minimind")


@pytest.mark.parametrize("keep", [0, 1, 100, -100])
def test_a_checkpoint_cut_short(tmp_path: Path, keep: int) -> None:
    torch.save(toy_tensors(), tmp_path / "m.pth")
    whole = (tmp_path / "m.pth").read_bytes()
    (tmp_path / "m.pth").write_bytes(whole[:keep])
    refused(
        tmp_path / "m.pth",
        r"m\.pth: cannot be read as a PyTorch checkpoint of tensors .* damaged or cut short",
        family="minimind",
    )


def test_a_checkpoint_that_unpacks_to_more(tmp_path: Path) -> None:
    torch.save(toy_tensors(), tmp_path / "m.pth")
    with (
        zipfile.ZipFile(tmp_path / "m.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", compression=zipfile.ZIP_DEFLATED) as new,
    ):
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))
    refused(tmp_path / "bomb.pth", r"a compressed archive, which torch\.save does not write", family="minimind")


# -- safetensors


def header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of a safetensors file by hand."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    fields = json.loads(raw[8 : 8 + size])
    change(fields)
    text = json.dumps(fields).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


def overlap(fields: dict[str, Any]) -> None:
    fields["model.h.1.up.weight"]["data_offsets"] = fields["model.h.0.up.weight"]["data_offsets"]


def beyond(fields: dict[str, Any]) -> None:
    start, _ = fields["model.h.1.up.weight"]["data_offsets"]
    fields["model.h.1.up.weight"]["data_offsets"] = [start, 2**60]


def too_large(fields: dict[str, Any]) -> None:
    fields["model.h.1.up.weight"]["shape"] = [2**40, 2**40]


def negative(fields: dict[str, Any]) -> None:
    fields["model.h.1.up.weight"]["shape"] = [-12, -8]


@pytest.mark.parametrize("change", [overlap, beyond, too_large, negative])
def test_headers_that_lie(source: Path, change: Callable[[dict[str, Any]], None]) -> None:
    header(source / "model.safetensors", change)
    refused(source, r"model\.safetensors: cannot be read as safetensors \(.+\); the file is damaged or cut short")


@pytest.mark.parametrize(
    "raw",
    [
        lambda whole: b"",
        lambda whole: whole[:4],
        lambda whole: whole[:200],  # in the header
        lambda whole: whole[:-1],  # in the data
        lambda whole: whole + b"x",
        lambda whole: (2**62).to_bytes(8, "little") + whole[8:],
        lambda whole: (200_000_000).to_bytes(8, "little") + whole[8:],
        lambda whole: b"\xff" * 4000,
        lambda whole: (8).to_bytes(8, "little") + b"{{{{{{{{",
        lambda whole: (2**16).to_bytes(8, "little") + b"[" * 2**16,
    ],
)
def test_safetensors_that_are_damaged(source: Path, raw: Callable[[bytes], bytes]) -> None:
    path = source / "model.safetensors"
    path.write_bytes(raw(path.read_bytes()))
    refused(source, r"model\.safetensors: cannot be read as safetensors")


# -- shards


def test_an_index_that_leads_out_of_the_folder(source: Path) -> None:
    weight_map = shard(source)
    save_file(toy_tensors(), source.parent / "secret.safetensors")
    absolute = str(source.parent / "secret.safetensors")
    for where in (
        "../secret.safetensors",
        "../../../../../../etc/passwd",
        absolute,
        "sub/../../secret.safetensors",
        "..\\secret.safetensors",
        "C:secret.safetensors",
        "model.bin",
        "\0.safetensors",
        3,
        None,
        {"a": 1},
    ):
        write_index(source, {**weight_map, "model.ln.weight": where})
        refused(
            source, r"weight_map: 'model\.ln\.weight' is said to be in .*; expected the name of a \.safetensors file"
        )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_leads_out_of_the_folder(source: Path, name: str) -> None:
    path, elsewhere = source / name, source.parent / "elsewhere"
    elsewhere.write_bytes(path.read_bytes() if path.exists() else b"{}")
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    refused(source, rf"{name}: a link that leads out of the folder")


def test_a_link_of_a_false_cache(tmp_path: Path) -> None:
    """The exception for the Hub's cache is for its blobs and for nothing else."""
    snapshot = toy_folder(tmp_path / "models--x--toy" / "snapshots" / "0123")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (snapshot / "model.safetensors").rename(elsewhere / "blob")
    (tmp_path / "models--x--toy" / "blobs").symlink_to(elsewhere)
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/blob"))
    refused(snapshot, r"model\.safetensors: a link that leads out of the folder")


def test_a_pipe_is_not_waited_for(source: Path) -> None:
    (source / "model.safetensors").unlink()
    os.mkfifo(source / "model.safetensors")
    refused(source, r"model\.safetensors: not a regular file")


def test_index_and_shards_must_agree(source: Path) -> None:
    weight_map = shard(source)
    (source / SECOND).rename(source / "kept")
    refused(source, rf"{SECOND}: the file is missing; .*names it")
    (source / "kept").rename(source / SECOND)

    one, two = load_file(source / FIRST), load_file(source / SECOND)
    name = next(iter(one))
    save_file({**two, name: one[name]}, source / SECOND)
    refused(source, rf"holds {name}, which {INDEX} says is in {FIRST}: a tensor may be in one shard only")
    save_file({**two, "model.extra": torch.ones(1)}, source / SECOND)
    refused(source, rf"holds model\.extra, which {INDEX} does not name")
    save_file(two, source / SECOND)

    write_index(source, {**weight_map, "model.ghost": FIRST})
    refused(source, rf"does not hold model\.ghost, which {INDEX} says is there")
    write_index(source, dict.fromkeys(one, FIRST))
    refused(source, rf"{SECOND} is beside {INDEX}, which does not name it")
    for nonsense in ([], {}, None, "x"):
        write_index(source, nonsense)
        refused(source, r"weight_map: got .*; expected tensor names and their files")
    (source / INDEX).unlink()
    refused(source, rf"holds shards \({FIRST}, {SECOND}\) without {INDEX}")


# -- config.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"config\.json: not JSON"),
        ("{", r"config\.json: not JSON"),
        ("\x00\x01", r"config\.json: not JSON"),
        ("[1, 2]", r"config\.json: got \[1, 2\]; expected what transformers writes, a JSON object"),
        ("null", r"config\.json: got null; expected what transformers writes"),
        ('{"a": ' + "[" * 100_000, r"config\.json: nested too deeply"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", r"config\.json: nested too deeply"),
        ('{"a": "' + "x" * (9 << 20) + '"}', r"config\.json: larger than 8 MiB"),
        ('{"a": ' + "9" * 5000 + "}", r"config\.json: not JSON"),
        ('{"hidden_size": 8, "hidden_size": 16}', r"config\.json: 'hidden_size' is given twice"),
        ("{}", r"got no model_type; expected one that can be imported:"),
        ('{"model_type": ["toy"]}', r'model_type \["toy"\]; expected one that can be imported'),
        ('{"model_type": "mamba"}', r"model_type 'mamba'; expected one that can be imported: minimind, toy"),
        ('{"model_type": "toy"}', r"config\.json: not a config that this family can have: .*KeyError: 'num_heads'"),
    ],
    ids=range(14),
)
def test_configs_that_are_none(source: Path, text: str, message: str) -> None:
    (source / "config.json").write_text(text, encoding="utf-8")
    refused(source, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 16},
            r"model\.wte\.weight has shape \(40, 8\); expected \(40, 16\) of the model that config\.json",
        ),
        ({"hidden_size": "8"}, r"describes a model that cannot be built: .*hidden_size: got '8'"),
        ({"hidden_size": 10**30}, r"describes a model that cannot be built: .*hidden_size"),
        ({"hidden_size": 2**20}, r"describes [0-9,]+ parameters; the weights hold 1,448 numbers"),
        ({"num_layers": 10_000}, r"describes [0-9,]+ parameters; the weights hold 1,448 numbers"),
        (
            {"num_hidden_layers": 10**9},
            r"num_hidden_layers: got 1000000000; the weights have 16 tensors, which cannot be",
        ),
        ({"num_layers": 3}, r"toy: model\.h\.2\.qkv\.weight, .* and 3 more missing$"),
        ({"num_layers": 1}, r"toy: model\.h\.1\..* and 3 more not of the model that config\.json describes"),
        ({"tied": False}, r"toy: lm_head\.weight missing"),
        ({"num_heads": 3}, r"describes a model that cannot be built: .*num_heads"),
    ],
)
def test_configs_of_another_model(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = toy_folder(tmp_path / "toy", toy_tensors(), **changes)
    refused(source, message)


def test_no_config_and_no_weights(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    refused(tmp_path / "toy", r"there is no config\.json in it, so it is not a Hugging Face folder")
    (tmp_path / "toy" / "config.json").write_text('{"model_type": "toy"}')
    refused(tmp_path / "toy", r"there are no weights in it; expected model\.safetensors, or shards")
    (tmp_path / "toy" / "model.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "toy", r"holds its weights as GGUF; import the \.gguf file")
    refused(tmp_path / "toy" / "model.gguf", r"the version: needs 4 bytes, and the file has 0 more")
    torch.save(toy_tensors(), tmp_path / "toy" / "pytorch_model.bin")
    refused(tmp_path / "toy", r"holds its weights as a pickle only .* save it as safetensors")
    refused(tmp_path / "toy" / "config.json", r"give the folder that holds config\.json and the weights")
    refused(tmp_path / "nothing", r"nothing: there is no such file or folder")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", r"not a model that can be imported; expected a Hugging Face folder")
    save_file({}, tmp_path / "toy" / "model.safetensors")
    refused(tmp_path / "toy", r"there is not one tensor in model\.safetensors")


# -- values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.wte.weight", "model.h.1.qkv.weight", "model.ln.weight"])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, name: str) -> None:
    tensors = toy_tensors()
    tensors[name].view(-1)[3] = value
    source = toy_folder(tmp_path / "toy", tensors)
    refused(source, rf"model\.safetensors: {name} holds 1 NaN or infinite value of {tensors[name].numel()}")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_not_floats(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = toy_tensors()
    tensors["model.h.0.up.weight"] = tensors["model.h.0.up.weight"].to(dtype)
    source = toy_folder(tmp_path / "toy", tensors)
    refused(source, r"model\.h\.0\.up\.weight has type \w+; expected float32, bfloat16, float16 or float64")


@pytest.mark.parametrize("shape", [(12, 9), (8, 12), (96,), (12, 8, 1), ()])
def test_a_tensor_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = toy_folder(tmp_path / "toy", {**toy_tensors(), "model.h.0.up.weight": torch.ones(shape)})
    refused(
        source, r"model\.h\.0\.up\.weight has shape \(.*\); expected \(12, 8\) of the model that config\.json describes"
    )


def test_tensors_missing_and_surplus_are_named_together(tmp_path: Path) -> None:
    tensors = toy_tensors()
    tensors["model.lora.weight"] = tensors.pop("model.ln.weight")
    source = toy_folder(tmp_path / "toy", tensors)
    refused(source, r"toy: model\.ln\.weight missing; model\.lora\.weight not of the model that config\.json describes")


# -- what is left behind


def test_a_disk_that_fills_up(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from miniwin.zoo.importing.writing import TensorFile

    def full(self: TensorFile, name: str, pieces: Iterator[torch.Tensor]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorFile, "write_pieces", full)
    refused(source, r"out: cannot be written: No space left on device")


def test_ctrl_c_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(what: str, done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_model(source, source.parent / "new" / "out", progress=stop)
    assert [path.name for path in source.parent.iterdir()] == ["toy"]


def test_the_command_gives_one_message_and_no_traceback(source: Path) -> None:
    write_index(source, {"model.ln.weight": "../../etc/passwd"})
    code, out, err = run_cli("import", str(source), "--to", str(source.parent / "out"))
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert not (source.parent / "out").exists()


def test_what_was_imported_is_checked_when_it_is_opened(source: Path) -> None:
    """A folder with import.json is opened by the same rules as a run folder."""
    out = source.parent / "out"
    import_model(source, out)
    (out / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read as safetensors"):
        miniwin.load(out)
    (out / "import.json").unlink()
    with pytest.raises(UserError, match=r"nor a zoo entry \(entry\.json\) nor an imported model \(import\.json\)"):
        miniwin.load(out)
