"""Loading by reference, building, the public names, and what is said when a model cannot be loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from paths import ROOT
from safetensors.torch import load_file, save_file

import miniwin
from miniwin.language_model import LanguageModel
from miniwin.machine import memory
from miniwin.specs import ModelSpec, UserError, dump_yaml, load_model_spec
from miniwin.tokenizer import load_tokenizer

SPEC = "miniwin-tiny"


@pytest.fixture(autouse=True)
def empty_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No entries but those of the package; nothing is pulled, nothing of the user's is touched."""
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIWIN_ZOO_INDEX", raising=False)


@pytest.fixture
def model() -> LanguageModel:
    return miniwin.build(SPEC, seed=3)


@pytest.fixture
def run_folder(tmp_path: Path, model: LanguageModel) -> Path:
    """What a finished training run leaves, as far as loading is concerned."""
    folder = tmp_path / "run"
    folder.mkdir()
    record = {"format": 1, "status": "complete", "reason": None, "seed": 3, "data": {"source": "none"}}
    record |= {"train": {"seq_len": 64}, "code": {"miniwin": "0.1.0"}, "machine": {"cpu": "any"}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "model.yaml").write_text(dump_yaml(model.spec), encoding="utf-8")
    assert model.tokenizer is not None
    model.tokenizer.save(folder)
    save_file(model.decoder.state_dict(), folder / "model.safetensors")
    return folder


def same_weights(a: LanguageModel, b: LanguageModel) -> bool:
    left, right = a.decoder.state_dict(), b.decoder.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_import_is_lazy_and_the_names_are_there() -> None:
    code = (
        "import miniwin, sys; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules;"
        "assert set(miniwin.__all__) <= set(dir(miniwin))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert all(hasattr(miniwin, name) for name in miniwin.__all__)
    assert sorted(miniwin.__all__) == sorted(
        ["LanguageModel", "UserError", "__version__", "build", "evaluate", "load", "load_spec", "train"]
    )
    with pytest.raises(AttributeError, match="module 'miniwin' has no attribute 'lod'; it has LanguageModel"):
        miniwin.lod  # type: ignore[attr-defined]  # noqa: B018


def test_weights_come_back_bit_for_bit(run_folder: Path, model: LanguageModel) -> None:
    loaded = miniwin.load(run_folder)
    assert same_weights(loaded, model)
    assert not loaded.training and not any(module.training for module in loaded.modules())
    assert loaded.spec == model.spec and loaded.ref == str(run_folder)
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(loaded(ids), model.eval()(ids))
    assert loaded(ids).requires_grad, "a loaded model can be trained on"


def test_logits_cache_and_shapes(run_folder: Path) -> None:
    loaded = miniwin.load(run_folder)
    ids = torch.arange(50).unsqueeze(0)
    with torch.no_grad():
        whole = loaded(ids)
        cache = loaded.new_cache()
        parts = [loaded(part, cache=cache) for part in ids.split(13, dim=1)]
        last = loaded(ids, logits_to_keep=1)
    assert whole.shape == (1, 50, 256) and last.shape == (1, 1, 256) and cache.length == 50
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


def test_the_meta_device_leaves_nothing_behind(run_folder: Path) -> None:
    loaded = miniwin.load(run_folder)
    tensors = [*loaded.parameters(), *loaded.buffers()]
    assert tensors and all(tensor.device.type == "cpu" for tensor in tensors)


def test_dtype_converts_and_the_default_keeps(run_folder: Path) -> None:
    assert miniwin.load(run_folder).dtype == torch.float32
    half = miniwin.load(run_folder, dtype="bfloat16")
    assert half.dtype == torch.bfloat16 == miniwin.load(run_folder, dtype=torch.bfloat16).dtype
    assert half(torch.tensor([[1, 2]])).dtype == torch.float32


def test_a_run_without_final_weights_loads_its_checkpoint(run_folder: Path, model: LanguageModel) -> None:
    from miniwin.checkpoint import save_checkpoint

    (run_folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights yet: neither model.safetensors nor checkpoint.pt; train it"):
        miniwin.load(run_folder)
    save_checkpoint(run_folder / "checkpoint.pt", {"step": 5, "model": dict(model.decoder.state_dict())})
    assert same_weights(miniwin.load(run_folder), model)


def test_spec_paths_and_shipped_names_give_random_weights(tmp_path: Path, model: LanguageModel) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(model.spec), encoding="utf-8")
    from_path = miniwin.load(path, seed=3)
    assert same_weights(from_path, model) and not from_path.training
    assert from_path.ref == f"{path} (random weights)"
    assert same_weights(miniwin.load("minimind-tiny", seed=1), miniwin.load("minimind-tiny", seed=1))
    assert not same_weights(from_path, miniwin.load(path, seed=4))


def test_build_takes_a_spec_a_path_or_a_name_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    spec = load_model_spec(SPEC)
    assert isinstance(spec, ModelSpec)
    path = tmp_path / "spec.yaml"
    path.write_text(dump_yaml(spec), encoding="utf-8")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, second, third = (
        miniwin.build(spec, seed=2),
        miniwin.build(path, seed=2),
        miniwin.build(SPEC, seed=2),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(first, second) and same_weights(first, third)
    assert first.training and first.ref == "miniwin-tiny"
    assert sum(parameter.numel() for parameter in first.parameters()) == spec.parameters()


def test_a_zoo_entry_by_name_version_and_folder(tmp_path: Path, run_folder: Path, model: LanguageModel) -> None:
    from miniwin.zoo import add

    entry = add(run_folder, name="my-model", version="1.2.0", metrics={}, provenance={})
    for ref in ("my-model", "my-model@1", "my-model@1.2.0", "my-model@latest", entry.folder):
        loaded = miniwin.load(ref)
        assert same_weights(loaded, model) and loaded.ref == "my-model@1.2.0", ref
    with pytest.raises(UserError, match=r"my-model has no version 3; it has 1\.2\.0"):
        miniwin.load("my-model@3")
    with pytest.raises(UserError, match="did you mean my-model"):
        miniwin.load("my-modle")
    # A damaged weight is noticed, by name and by folder.
    weights = entry.folder / "model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for ref in ("my-model", entry.folder):
        with pytest.raises(
            UserError, match=r"my-model@1.2.0 is damaged and was not loaded: model.safetensors: has sha256"
        ):
            miniwin.load(ref)


def test_a_folder_of_the_same_name_does_not_hide_a_zoo_entry(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from miniwin.zoo import add

    add(run_folder, name="my-model", version="1.0.0", metrics={}, provenance={})
    (tmp_path / "here" / "my-model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert miniwin.load("my-model").ref == "my-model@1.0.0"


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (
            "miniwin-tinny",
            r"miniwin-tinny: no such file or folder, zoo entry or shipped spec; did you mean miniwin-tiny",
        ),
        (
            "zzzz",
            r"zzzz: no such file .*zoo entry or shipped spec; Zoo entries: .*Shipped specs: .*miniwin-tiny",
        ),
        ("./nothing/here", r"\./nothing/here: there is no such file or folder"),
        ("nothing.yaml", r"nothing\.yaml: there is no such file or folder"),
        ("", "the model reference is empty"),
    ],
)
def test_unknown_references(ref: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        miniwin.load(ref)


def test_a_name_whose_place_or_ending_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_folder: Path, model: LanguageModel
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIWIN_HOME", "runs")
    (tmp_path / "mine.yaml").write_text(dump_yaml(model.spec))
    (tmp_path / "runs" / "searches" / "found").mkdir(parents=True)
    (tmp_path / "runs" / "searches" / "found" / "search.yaml").touch()
    run_folder.rename(tmp_path / "runs" / "first")
    for ref, meant in (("mine", "mine.yaml"), ("first", "runs/first"), ("found", "runs/searches/found")):
        with pytest.raises(UserError, match=rf"^{ref}: no such file .* shipped spec; did you mean {meant}\b") as caught:
            miniwin.load(ref)
        assert "Shipped specs" not in str(caught.value)  # 45 names hide the one that was meant
    with pytest.raises(UserError, match=r"mine: there is no such file, .*; did you mean 'mine.yaml'\?"):
        load_model_spec("mine")


def test_exports_are_not_mistaken_for_models(tmp_path: Path) -> None:
    from miniwin.zoo.exporting import export_model
    from miniwin.zoo.importing import import_model

    export_model("miniwin-tiny", tmp_path / "custom")
    export_model("minimind-tiny", tmp_path / "stock")
    with pytest.raises(UserError, match=r"custom is an export for transformers.* the run, entry or spec that it was"):
        miniwin.load(tmp_path / "custom")
    with pytest.raises(UserError, match=r"custom: an export of MiniWin with code of its own.* cannot be imported"):
        import_model(tmp_path / "custom", tmp_path / "back")
    with pytest.raises(UserError, match=r"stock is a model for transformers .*: .* miniwin import .*stock --to NEW"):
        miniwin.load(tmp_path / "stock")


def test_what_is_no_reference_and_no_tensor_is_said(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"load: got a dict; expected a name or a path.*miniwin.build"):
        miniwin.load({"kind": "model"})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model: got a LanguageModel; expected a model spec, .* that with from_"):
        miniwin.train(model, "tiny", out=tmp_path / "run")  # type: ignore[arg-type]
    for wrong in ([1, 2, 3], "hello"):
        with pytest.raises(UserError, match=rf"input_ids: got a {type(wrong).__name__}; expected a tensor of integers"):
            model(wrong)


def test_weights_beyond_the_machines_memory_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_model_spec("miniwin-tiny")
    need = 4 * spec.parameters()
    assert memory.total_memory() is None or memory.total_memory() > 2**28
    monkeypatch.setattr(memory, "total_memory", lambda: need - 1)
    for make in (lambda: miniwin.load("miniwin-tiny"), lambda: miniwin.build(spec)):
        with pytest.raises(UserError, match=r"has \d[\d,]+ parameters: .* its weights alone take .* this machine has"):
            make()
    monkeypatch.setattr(memory, "total_memory", lambda: 3 * need - 1)
    miniwin.build(spec)
    with pytest.raises(UserError, match="weights, gradients and optimizer take at least"):
        miniwin.train(spec, "tiny", out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(memory, "total_memory", lambda: None)
    miniwin.build(spec)


def test_folders_and_files_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is neither a run folder \(run.json\) nor a zoo entry \(entry.json\)"):
        miniwin.load(tmp_path / "empty")
    (tmp_path / "empty" / "search.yaml").touch()
    with pytest.raises(UserError, match=r"empty is a search, not a model: none of its trials is trained yet"):
        miniwin.load(tmp_path / "empty")
    trained = tmp_path / "empty" / "trials" / "0a1b2c3d4e5f" / "run"
    trained.mkdir(parents=True)
    (trained / "model.safetensors").touch()
    with pytest.raises(UserError, match=f"empty is a search, not a model: load one of its trials, such as {trained}$"):
        miniwin.load(tmp_path / "empty")
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(UserError, match=r"weights.safetensors is a file, but not a model spec"):
        miniwin.load(tmp_path / "weights.safetensors")


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor
    save_file(tensors, folder / "model.safetensors")


def test_missing_weights(run_folder: Path) -> None:
    change_weights(run_folder, embed_tokens__weight=None)
    with pytest.raises(
        UserError,
        match=r"does not hold the weights of the model\.yaml beside it: embed_tokens\.weight missing",
    ):
        miniwin.load(run_folder)


def test_surplus_weights(run_folder: Path) -> None:
    change_weights(run_folder, lm_head__weight=torch.zeros(2))
    with pytest.raises(UserError, match=r"beside it: lm_head\.weight not of this model; spec and weights must come"):
        miniwin.load(run_folder)


def test_weights_of_another_shape(run_folder: Path) -> None:
    change_weights(run_folder, embed_tokens__weight=torch.zeros(256, 7))
    with pytest.raises(
        UserError, match=r"embed_tokens\.weight has shape \(256, 7\), and the model\.yaml .*\(256, 64\)"
    ):
        miniwin.load(run_folder)


def test_torn_weights(run_folder: Path) -> None:
    weights = run_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read as safetensors"):
        miniwin.load(run_folder)


def test_a_tokenizer_larger_than_the_model(run_folder: Path, model: LanguageModel) -> None:
    small = model.spec.model_copy(update={"vocab_size": 100})
    (run_folder / "model.yaml").write_text(dump_yaml(small), encoding="utf-8")
    change_weights(run_folder, embed_tokens__weight=torch.zeros(100, model.spec.hidden_size))
    with pytest.raises(UserError, match="the tokenizer has 256 ids and the model only 100"):
        miniwin.load(run_folder)


def test_devices_and_dtypes_that_do_not_exist(run_folder: Path) -> None:
    with pytest.raises(UserError, match="device: got 'gpu'; expected cpu, cuda"):
        miniwin.load(run_folder, device="gpu")
    with pytest.raises(UserError, match="dtype: expected one of float32, bfloat16, float16, got 'int8'"):
        miniwin.load(run_folder, dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device: cuda was asked for, and this machine has no CUDA device"):
            miniwin.load(run_folder, device="cuda")


def test_a_vocabulary_too_small_for_bytes_has_no_tokenizer(model: LanguageModel) -> None:
    assert miniwin.build(model.spec.model_copy(update={"vocab_size": 64})).tokenizer is None
    assert miniwin.build(model.spec).tokenizer is not None
    assert load_tokenizer("byte").vocab_size == 256
