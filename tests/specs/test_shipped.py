"""The gallery: every YAML file in the package loads, builds, and costs what its spec says."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers import SMALL
from tiny import run_cli
from torch import nn

from miniwin.blocks import Decoder
from miniwin.specs import (
    ModelSpec,
    SearchSpec,
    SuiteSpec,
    TrainSpec,
    dump_yaml,
    load_model_spec,
    load_search_spec,
    load_spec,
    load_train_spec,
    resolve_spec_path,
    shipped_specs,
)
from miniwin.specs.described import described

SPECS = Path(resolve_spec_path("miniwin-tiny", "model")).resolve().parent.parent
FILES = sorted(path for path in SPECS.rglob("*") if path.suffix in (".yaml", ".yml"))
MODELS, TRAINS, SEARCHES, SUITES = (
    sorted(shipped_specs(kind).values()) for kind in ("model", "train", "search", "suite")
)


def short(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_every_file_is_shipped_under_its_kind() -> None:
    """A file in another folder, or with another ending, would be neither found by name nor be in the wheel."""
    assert sorted(path.resolve() for path in FILES) == sorted(
        path.resolve() for path in MODELS + TRAINS + SEARCHES + SUITES
    )
    assert MODELS and TRAINS and SEARCHES and SUITES


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_loads_and_has_the_name_of_the_file(path: Path) -> None:
    kinds = {"models": ModelSpec, "train": TrainSpec, "searches": SearchSpec, "suites": SuiteSpec}
    spec = load_spec(path)
    assert type(spec) is kinds[path.parent.name]
    assert spec.name == path.stem


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    """In a sentence that stands alone, for `miniwin specs`."""
    about = described(path)
    assert path.read_text().startswith("# ") and about.endswith((".", "?")) and 20 < len(about) < 400


def test_the_command_lists_every_spec() -> None:
    code, out, _ = run_cli("specs")
    lines = [line.split(maxsplit=2) for line in out.splitlines()[1:]]
    kinds = ("model", "train", "search", "suite")
    assert code == 0 and [line[:2] for line in lines] == [
        [kind, name] for kind in kinds for name in shipped_specs(kind)
    ]
    (line,) = [line for line in out.splitlines() if line.split()[1] == "mistral-7b"]
    assert " 7,241,732,096  Mistral 7B v0.1 (" in line and line.endswith(": a sliding window of 4096 in every layer.")
    code, out, _ = run_cli("specs", "search", "--json")
    rows = json.loads(out)
    assert code == 0 and [row["name"] for row in rows] == list(shipped_specs("search"))
    assert all(row["kind"] == "search" and row["parameters"] is None and Path(row["file"]).is_file() for row in rows)
    code, out, err = run_cli("specs", "modle")
    assert (code, out) == (2, "") and "unknown kind of spec 'modle': expected one of model, train, search, suite" in err


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# One v0.2 of a, b.\n#  Two.\nkind: model\n", "One v0.2 of a, b."),
        ("# Broken over\n# two lines\n\n# not this\n", "Broken over two lines"),
        ("kind: model # no\n", ""),
    ],
)
def test_the_first_sentence_of_the_first_comment(tmp_path: Path, comment: str, expected: str) -> None:
    (tmp_path / "spec.yaml").write_text(comment)
    assert described(tmp_path / "spec.yaml") == expected


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_comes_back_from_canonical_yaml(path: Path, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(dump_yaml(load_spec(path)))
    assert load_spec(tmp_path / "again.yaml") == load_spec(path)


@cache
def built(path: Path) -> tuple[ModelSpec, Decoder]:
    """The spec, and its model without memory for the weights."""
    spec = load_model_spec(path)
    with torch.device("meta"):
        return spec, spec.build()


# Smaller ones keep the whole contract of test_contract.py.
@pytest.mark.parametrize("path", [p for p in MODELS if load_model_spec(p).parameters() >= SMALL], ids=short)
def test_large_models_have_the_parameters_and_the_cache_of_the_spec(path: Path) -> None:
    spec, decoder = built(path)
    assert all(tensor.is_meta for tensor in decoder.parameters())
    assert sum(tensor.numel() for tensor in decoder.parameters()) == spec.parameters()
    letters = "".join(dict.fromkeys(spec.layout))  # a layer of each kind is called; their number changes nothing
    short_spec = spec.model_copy(update={"num_layers": len(letters), "pattern": letters, "last": None})
    with torch.device("meta"), torch.no_grad():
        short_decoder = short_spec.build()
        cache = short_decoder.new_cache()
        logits = short_decoder(torch.zeros(1, 150, dtype=torch.int64), cache=cache)
    assert logits.shape == (1, 150, spec.vocab_size)
    assert cache.nbytes == short_spec.cache_bytes(150)


@pytest.mark.parametrize("path", MODELS, ids=short)
def test_models_cost_what_the_spec_says(path: Path) -> None:
    """FLOPs per token, counted from the built model's weights and its scores."""
    spec, decoder = built(path)
    length = 150
    weights = sum(module.weight.numel() for module in decoder.modules() if isinstance(module, nn.Linear))
    weights += spec.vocab_size * spec.hidden_size if spec.tie_word_embeddings else 0
    weights -= spec.parameters() - spec.active_parameters()  # of a mixture, the experts that a token does not use
    scores = 0.0
    for layer in spec.layer_specs:
        attention = layer.attention
        window, chunk = attention.window or length, attention.chunk or length
        seen = [min(i % chunk + 1, window) for i in range(length)]
        scores += 4 * attention.num_heads * attention.head_dim * sum(seen) / length
    biased = any(name.endswith("experts.0.up_proj.bias") for name, _ in decoder.named_parameters())
    assert spec.forward_flops(length) == pytest.approx(2 * weights + scores, rel=0.01 if biased else 1e-6)
    assert spec.training_flops(length) == 3 * spec.forward_flops(length)


def test_models_are_different_architectures() -> None:
    hashes = [load_model_spec(path).hash for path in MODELS]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("size", ["tiny", "1m"])
def test_baselines_are_of_the_same_size(size: str) -> None:
    ours, baseline = load_model_spec(f"miniwin-{size}"), load_model_spec(f"minimind-{size}")
    assert baseline.parameters() == pytest.approx(ours.parameters(), rel=0.01)
    assert {layer.attention.window for layer in baseline.layer_specs} == {None}
    assert {layer.attention.position.type for layer in baseline.layer_specs} == {"rope"}
    assert ours.cache_bytes(131072) < baseline.cache_bytes(131072)


@pytest.mark.parametrize("path", TRAINS, ids=short)
def test_trains_need_nothing_that_a_machine_may_lack(path: Path) -> None:
    spec = load_train_spec(path)
    parts = [part.data for part in spec.data.parts] if spec.data.source == "mixture" else [spec.data]
    assert {part.source for part in parts} <= {"python-stdlib", "tasks", "examples"} and spec.tokenizer == "byte"
    assert spec.steps >= 10


@pytest.mark.parametrize("path", SEARCHES, ids=short)
def test_searches_name_specs_that_are_there(path: Path) -> None:
    spec = load_search_spec(path)
    assert isinstance(load_train_spec(path.parent / spec.train), TrainSpec)
    if spec.weights is not None:  # its base and its baseline may be the model of the weights
        return
    assert isinstance(load_model_spec(path.parent / spec.base), ModelSpec)
    if spec.baseline is not None:
        baseline, base = load_model_spec(path.parent / spec.baseline), load_model_spec(path.parent / spec.base)
        assert baseline.hash != base.hash and baseline.vocab_size == base.vocab_size


@pytest.mark.parametrize("path", SEARCHES, ids=short)
def test_searches_pass_the_check_of_the_command_line(path: Path) -> None:
    from miniwin.search.space import check_search

    check_search(load_search_spec(path), path.parent)
