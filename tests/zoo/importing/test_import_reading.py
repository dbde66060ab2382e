"""Importing what is as it should be: folders, shards, checkpoint files, settings, types, tokenizers, the command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from float64 import assert_as_near, doubled
from foreign import CONFIG, shard, toy_folder, toy_model, toy_tensors, use_toys
from helpers import largest
from paths import GOLDEN
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import run_cli
from tokenizers import Tokenizer, models
from torch import Tensor

import miniwin
from miniwin.specs import UserError, load_model_spec
from miniwin.zoo.importing import Asked, import_model, open_source

IDS = torch.arange(11)[None]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toys(monkeypatch)


def write_tokenizer(folder: Path, size: int) -> Path:
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    inner.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def logits(folder: Path) -> Tensor:
    with torch.no_grad():
        out: Tensor = miniwin.load(folder)(IDS)
    return out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_becomes_the_model_it_describes(tmp_path: Path, tied: bool, sharded: bool) -> None:
    tensors = toy_tensors({**CONFIG, "tied": tied})
    source = toy_folder(tmp_path / "Toy Model v1", tensors, tied=tied)
    if sharded:
        shard(source, 3)
    made = import_model(source, tmp_path / "out")
    assert made.spec.name == "toy-model-v1" and made.tokenizer is None and made.spec.tie_word_embeddings == tied
    with torch.no_grad():
        assert torch.equal(logits(tmp_path / "out"), toy_model(tensors, made.spec)(IDS))
    assert load_model_spec(tmp_path / "out" / "model.yaml") == made.spec
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Toy Model v1", "out"], "nothing else is left"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "import.json",
        "model.safetensors",
        "model.yaml",
    ]


def test_the_record_says_what_was_read(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy")
    made = import_model(source, tmp_path / "deep" / "out", settings={"window": 5})
    record = json.loads((tmp_path / "deep" / "out" / "import.json").read_text())
    assert record == made.record
    expected = {
        name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in ("config.json", "model.safetensors")
    }
    assert record["files"] == expected
    assert record["said"] == {"window": 5} and made.spec.blocks["G"].attention.window == 5
    assert (record["source"], record["kind"], record["model_type"]) == ("toy", "hf", "toy")
    assert record["parameters"] == made.spec.parameters() and record["spec_hash"] == made.spec.hash
    assert record["miniwin"] == miniwin.__version__ and str(tmp_path) not in json.dumps(record)


def test_shapes_are_known_before_tensors_are_read(tmp_path: Path) -> None:
    tensors = toy_tensors()
    source = open_source(toy_folder(tmp_path / "toy", tensors))
    assert source.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert set(source.dtypes.values()) == {torch.float32} and source.elements == sum(
        t.numel() for t in tensors.values()
    )
    assert torch.equal(source.tensor("model.h.1.qkv.weight"), tensors["model.h.1.qkv.weight"])
    with pytest.raises(UserError, match=r"there is no tensor model\.nothing"):
        source.tensor("model.nothing")


def test_a_model_is_written_one_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than one rule's tensors are read before they are written."""
    from miniwin.zoo.importing.hf_folder import HFFolder
    from miniwin.zoo.importing.writing import TensorFile

    events: list[str] = []
    read, write = HFFolder._read, TensorFile.write_pieces
    monkeypatch.setattr(HFFolder, "_read", lambda self, name: (events.append("read"), read(self, name))[1])
    monkeypatch.setattr(TensorFile, "write_pieces", lambda self, n, p: (write(self, n, p), events.append("write")))
    import_model(toy_folder(tmp_path / "toy"), tmp_path / "out")
    assert "read read" not in " ".join(events) and events.count("write") == 2 + 9 * 2


def test_the_file_written_is_what_the_library_writes(tmp_path: Path) -> None:
    """Types, shapes and values as safetensors itself reads them; and writing them again changes nothing of it."""
    import_model(toy_folder(tmp_path / "toy"), tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"} and len(list(file.keys())) == 20
    again = load_file(path)
    save_file(again, tmp_path / "again.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "again.safetensors").stat().st_size == path.stat().st_size


def test_dtypes(tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in toy_tensors().items()}
    tensors["model.ln.weight"] = tensors["model.ln.weight"].float()
    source = toy_folder(tmp_path / "toy", tensors)
    kept = import_model(source, tmp_path / "kept")
    assert {t.dtype for t in load_file(tmp_path / "kept" / "model.safetensors").values()} == {torch.bfloat16}
    assert kept.record["dtype"] == "bfloat16" and kept.record["converted"] == {"float32": 1}
    wide = import_model(source, tmp_path / "wide", dtype="float32")
    assert wide.record["converted"] == {"bfloat16": 15}
    with torch.no_grad():
        reference = toy_model({name: tensor.float() for name, tensor in tensors.items()}, wide.spec)
        assert torch.equal(logits(tmp_path / "wide"), reference(IDS))
    with pytest.raises(UserError, match=r"--dtype: got 'int4'; expected keep or one of float32"):
        import_model(source, tmp_path / "no", dtype="int4")


def test_values_too_large_for_the_type(tmp_path: Path) -> None:
    tensors = toy_tensors()
    tensors["model.h.0.up.weight"][0, 0] = 1e6
    source = toy_folder(tmp_path / "toy", tensors)
    with pytest.raises(UserError, match=r"--dtype float16: layers\.0\.mlp\.up_proj\.weight holds values .*too large"):
        import_model(source, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_buffers_and_the_copy_of_a_tied_head_are_left_out_and_said(tmp_path: Path) -> None:
    tensors = toy_tensors()
    tensors |= {
        "lm_head.weight": tensors["model.wte.weight"].clone(),
        "model.h.0.rotary_emb.inv_freq": torch.ones(4),
        "model.h.0.attention.bias": torch.ones(1, 1, 6, 6, dtype=torch.bool),
        "model.h.0.attention.masked_bias": torch.tensor(-1e9),
    }
    made = import_model(toy_folder(tmp_path / "toy", tensors), tmp_path / "out")
    assert set(made.record["ignored"]) == set(tensors) - set(toy_tensors())
    tensors["lm_head.weight"][3, 3] += 1
    source = toy_folder(tmp_path / "other", tensors)
    with pytest.raises(
        UserError, match=r"lm_head\.weight differs from model\.wte\.weight, and tie_word_embeddings says"
    ):
        import_model(source, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


# -- which file


def test_weights_under_another_name(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy")
    (source / "model.safetensors").rename(source / "weights.safetensors")
    save_file({"logits": torch.ones(2)}, source / "io.safetensors")
    assert list(open_source(source).files) == ["config.json", "weights.safetensors"]
    (source / "weights.safetensors").rename(source / "mine.safetensors")
    with pytest.raises(UserError, match=r"holds io\.safetensors, mine\.safetensors, and it is not clear which"):
        open_source(source)
    (source / "io.safetensors").unlink()
    assert "mine.safetensors" in open_source(source).files


def test_the_hubs_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    snapshot = toy_folder(tmp_path / "models--x--toy" / "snapshots" / "0123abcd")
    blobs = tmp_path / "models--x--toy" / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    assert import_model(snapshot, tmp_path / "out").spec.vocab_size == 40


# -- checkpoint files


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda tensors: tensors, None),
        (lambda tensors: {"model": tensors, "step": 3}, "the weights are those under 'model'"),
        (lambda tensors: {"state_dict": tensors, "lr": 0.1}, "the weights are those under 'state_dict'"),
        (
            lambda tensors: {"model": tensors, "step": torch.tensor(3), "rng": torch.zeros(9, dtype=torch.uint8)},
            "the weights are those under 'model'; left out beside it: step, rng",
        ),
        (lambda tensors: {f"module._orig_mod.{n}": t for n, t in tensors.items()}, "_orig_mod. and module. before the"),
    ],
)
def test_a_checkpoint_file(tmp_path: Path, wrap: Any, note: str | None, new: bool) -> None:
    tensors = toy_tensors()
    file = tmp_path / "Pretrain_512.pth"
    torch.save(wrap(tensors), file, _use_new_zipfile_serialization=new)
    made = import_model(file, tmp_path / "out", family="minimind", settings={"num_heads": 2, "tied": True})
    with torch.no_grad():
        assert torch.equal(logits(tmp_path / "out"), toy_model(tensors, made.spec)(IDS))
    assert made.spec.name == "pretrain_512" and made.record["kind"] == "pth"
    assert made.record["said"] == {"num_heads": 2, "tied": True}
    assert made.record["inferred"] == {"hidden_size": {"value": 8, "evidence": "model.wte.weight is (40, 8)"}}
    assert made.notes == made.record["notes"]
    assert [note in one for one in made.notes] == ([True] if note else [])


def test_what_a_checkpoint_file_does_not_say_is_asked_for_at_once(tmp_path: Path) -> None:
    file = tmp_path / "m.pth"
    torch.save(toy_tensors(), file)
    with pytest.raises(
        UserError, match=r"m\.pth: a checkpoint file does not say what it is; say it: --as miniwin or --as"
    ):
        import_model(file, tmp_path / "out")
    with pytest.raises(
        UserError,
        match=r"the weights do not say num_heads, tied; say it: --set num_heads=VALUE \(heads that attend, such as 2\)"
        r"; --set tied=VALUE \(true where",
    ):
        import_model(file, tmp_path / "out", family="minimind")
    with pytest.raises(
        UserError, match=r"--set hidden_size: got 16; expected 8, since model\.wte\.weight is \(40, 8\)"
    ):
        import_model(file, tmp_path / "out", family="minimind", settings={"hidden_size": 16})
    with pytest.raises(
        UserError, match=r"--set num_head: this kind of model has no such setting; did you mean num_heads"
    ):
        settings = {"num_heads": 2, "tied": True, "num_head": 3}
        import_model(file, tmp_path / "out", family="minimind", settings=settings)
    with pytest.raises(UserError, match=r"describes a model that cannot be built: .*num_heads"):
        import_model(file, tmp_path / "out", family="minimind", settings={"num_heads": 3, "tied": True})
    with pytest.raises(UserError, match=r"--as llama: only miniwin and minimind can be read from a file"):
        import_model(file, tmp_path / "out", family="llama")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


def test_settings_and_config_may_not_contradict_each_other() -> None:
    asked = Asked({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None}, {})
    assert asked["a"] == 1 and asked.get("d", 4) == 4 and asked.get("c", 4) is None
    with pytest.raises(UserError, match=r"--set b: got 2; config\.json says 3"):
        asked.get("b")
    with pytest.raises(UserError, match=r"config\.json: a: got 1; expected 5, since the shapes say so"):
        Asked({}, {"a": 1}).infer("a", 5, "the shapes say so")


def test_the_family_may_be_said_only_where_the_config_does_not(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy", model_type=None)
    with pytest.raises(UserError, match=r"toy: got no model_type; expected one that can be imported: minimind, toy"):
        import_model(source, tmp_path / "out")
    assert import_model(source, tmp_path / "out", family="toy").record["model_type"] == "toy"
    with pytest.raises(UserError, match=r"--as minimind: .*config\.json says model_type 'toy'; leave --as out"):
        import_model(toy_folder(tmp_path / "other"), tmp_path / "out2", family="minimind")


# -- tokenizers


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy")
    path = write_tokenizer(source, 40)
    made = import_model(source, tmp_path / "out")
    assert made.tokenizer is not None and made.record["tokenizer"] == made.tokenizer.name
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert "tokenizer.json" in made.record["files"]
    assert isinstance(miniwin.load(tmp_path / "out").generate("w1 w2", max_new_tokens=3, seed=0), str)
    assert import_model(source, tmp_path / "bare", tokenizer="none").tokenizer is None


def test_a_tokenizer_that_does_not_fit(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy")
    large = write_tokenizer(source, 41)
    with pytest.raises(
        UserError, match=r"the tokenizer has 41 ids and the model only 40.*--tokenizer none to import with"
    ):
        import_model(source, tmp_path / "out")
    (tmp_path / "small").mkdir()
    small = write_tokenizer(tmp_path / "small", 9)
    assert import_model(source, tmp_path / "out", tokenizer=small).tokenizer is not None
    large.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"tokenizer\.json: nested too deeply .*; give --tokenizer none"):
        import_model(source, tmp_path / "out2")


# -- the command


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy")
    code, out, err = run_cli("import", str(source), "--to", str(tmp_path / "out"), "--set", "window=6")
    assert (code, err) == (0, "")
    lines = {line.split(" ", 1)[0]: line.split(" ", 1)[1].strip() for line in out.splitlines()}
    assert lines["spec"].startswith("toy, layers GG, hash ") and lines["parameters"] == "1,448, float32"
    assert lines["tokenizer"] == "none: it takes token ids only" and lines["said"] == "window 6"
    code, out, _ = run_cli("explain", str(tmp_path / "out"))
    assert code == 0 and "6 keys" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "window"], r"error: --set window: expected key=value"),
        (["--set", "window=1", "--set", "window=2"], r"error: --set window=2: window is given twice"),
        (["--set", "windw=4"], r"error: --set windw: this kind of model has no such setting; did you mean window\?"),
        (["--name", "No Name"], r"error: --name: got 'No Name'; expected lower-case letters"),
    ],
)
def test_the_commands_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    import re

    source = toy_folder(tmp_path / "toy")
    code, out, err = run_cli("import", str(source), "--to", str(tmp_path / "out"), *arguments)
    assert (code, out) == (2, "") and re.match(message, err) and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    source = toy_folder(tmp_path / "toy")
    (tmp_path / "out").mkdir()
    import_model(source, tmp_path / "out")
    before = (tmp_path / "out" / "import.json").read_bytes()
    with pytest.raises(UserError, match=r"out: exists already; give --to the name of a new folder"):
        import_model(source, tmp_path / "out")
    assert (tmp_path / "out" / "import.json").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file: exists already"):
        import_model(source, tmp_path / "file")


# -- the checkpoint files people have: the weights of golden cases as their authors' training scripts save them

CASES = {
    "A01_miniwin_prope_SSSL": {
        "num_attention_heads": 4,
        "sliding_window_size": 16,
        "attention_pattern": "SSSL",
        "rope_theta": 10_000.0,
    },
    "A05_minimind_dense": {},
}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_file_is_the_folder_with_its_settings(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real families
    tensors = load_file(GOLDEN / case / "weights.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.save(tensors, tmp_path / "m.pth")
    family = case.split("_")[1]
    made = import_model(tmp_path / "m.pth", tmp_path / "pth", family=family, settings=CASES[case])
    folder = import_model(GOLDEN / case, tmp_path / "hf")
    assert made.spec.hash == folder.spec.hash and made.record["said"] == CASES[case]
    ours, theirs = (load_file(tmp_path / kind / "model.safetensors") for kind in ("pth", "hf"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert set(made.record["inferred"]) >= {"vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads"}
    io = load_file(GOLDEN / case / "io.safetensors")
    with torch.no_grad():
        decoder = miniwin.load(tmp_path / "pth").decoder
        exact = doubled(decoder)(io["input_ids"])
        assert largest(io["logits.prefill"], exact) < 9e-5
        assert_as_near(decoder(io["input_ids"]), io["logits.prefill"], exact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window_size": None}, r"do not say sliding_window_size; say it: --set sliding_window_size=VALUE"),
        (
            {"sliding_window_size": None, "attention_pattern": None},
            r"the weights do not say sliding_window_size, attention_pattern; say it: --set sliding_window_size=",
        ),
        ({"num_attention_heads": None}, r"the weights do not say num_attention_heads"),
        (
            {"attention_pattern": "SSL"},
            r"attention_pattern: got 'SSL'; it makes the layers SSLSSL, layer 2 global; the",
        ),
        ({"hidden_size": 32}, r"--set hidden_size: got 32; expected 64, since model\.embed_tokens\.weight has shape"),
        (
            {"num_hidden_layers": 5},
            r"--set num_hidden_layers: got 5; expected 6, since the last layer is model\.layers\.5",
        ),
        ({"num_key_value_heads": 4}, r"--set num_key_value_heads: got 4; expected 2, since .*k_proj\.weight has shape"),
        (
            {"sliding_window": 16},
            r"sliding_window: got 16; .*no such field",
        ),
    ],
)
def test_wrong_settings_are_refused_with_what_the_shapes_say(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    torch.save(load_file(GOLDEN / "A01_miniwin_prope_SSSL" / "weights.safetensors"), tmp_path / "m.pth")
    settings = {**CASES["A01_miniwin_prope_SSSL"], **changes}
    settings = {key: value for key, value in settings.items() if value is not None}
    with pytest.raises(UserError, match=message):
        import_model(tmp_path / "m.pth", tmp_path / "out", family="miniwin", settings=settings)
    assert not (tmp_path / "out").exists()
