"""The golden cases as a user brings them in: `import_model` on each case's `config.json` and weights.

They become the spec, by its hash, and the weights, bit for bit, that test_golden.py holds against the source.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import FOLDERS, golden
from safetensors.torch import load_file
from torch import Tensor

from miniwin.specs import ModelSpec, UserError, load_model_spec
from miniwin.zoo.importing.converting import import_model

CASES = {folder.name[:3]: folder for folder in FOLDERS}


def brought(folder: Path) -> tuple[ModelSpec, dict[str, Tensor]]:
    return load_model_spec(folder / "model.yaml"), load_file(folder / "model.safetensors")


def is_the_case(name: str, spec: ModelSpec, weights: dict[str, Tensor]) -> None:
    case = golden(name)
    expected = case.decoder().state_dict()
    assert spec.hash == case.spec().hash
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("case", CASES)
def test_the_files_of_a_case_become_the_model_that_it_describes(case: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    shutil.copy(CASES[case] / "config.json", tmp_path / "source")
    shutil.copy(CASES[case] / "weights.safetensors", tmp_path / "source" / "model.safetensors")
    import_model(tmp_path / "source", tmp_path / "ours", name=case.lower())
    spec, weights = brought(tmp_path / "ours")
    is_the_case(case, spec, weights)
    layouts = {"A01": "SSSGSG", "A04": "SSSGSG", "A08": "GGGHGG", "A10": "SSSS"}
    assert spec.layout == layouts.get(case, spec.layout)


def from_checkpoint(tmp_path: Path, case: str, family: str, **settings: Any) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Imported from the weights alone, as a `.pth`."""
    torch.save(load_file(CASES[case] / "weights.safetensors"), tmp_path / "pretrain.pth")
    import_model(tmp_path / "pretrain.pth", tmp_path / "ours", name="from-pth", family=family, settings=settings)
    return brought(tmp_path / "ours")


PTH = {
    "A01": ("miniwin", {"num_attention_heads": 4, "sliding_window_size": 16, "attention_pattern": "SSSL"}),
    "A03": ("miniwin", {"num_attention_heads": 4, "sliding_window_size": 16, "attention_pattern": "SSSL"}),
    "A05": ("minimind", {}),
}
EXTRA: dict[str, dict[str, Any]] = {"A01": {"rope_theta": 10000.0}, "A03": {"sliding_pe_type": "alibi"}, "A05": {}}


@pytest.mark.parametrize("case", PTH)
def test_a_checkpoint_without_config(case: str, tmp_path: Path) -> None:
    """The shapes say the sizes, the user the rest; the model is the same as from its config."""
    family, settings = PTH[case]
    spec, weights = from_checkpoint(tmp_path, case, family, **settings, **EXTRA[case])
    is_the_case(case, spec, weights)
    record = json.loads((tmp_path / "ours" / "import.json").read_text())
    assert record["said"] == settings | EXTRA[case]
    assert record["inferred"]["hidden_size"]["value"] == 64


WRONG = [
    ({}, "the weights do not say num_attention_heads"),
    ({"num_attention_heads": 4}, "the weights do not say sliding_window_size, attention_pattern"),
    ({"attention_pattern": "SSLL"}, "attention_pattern: got 'SSLL'; it makes the layers SSLLSL, layer 2 global"),
    ({"attention_pattern": "SSSX"}, "attention_pattern: got 'SSSX'; expected letters S (sliding) and L (global)"),
    ({"num_attention_heads": 3}, "num_attention_heads"),
    ({"num_attention_heads": 8, "num_key_value_heads": 2}, "--set num_key_value_heads: got 2; expected 4, since"),
    ({"hidden_size": 32}, "--set hidden_size: got 32; expected 64, since model.embed_tokens.weight has shape"),
    ({"num_hidden_layers": 5}, "--set num_hidden_layers: got 5; expected 6, since the last layer is model.layers.5"),
    ({"sliding_pe_type": "t5"}, "sliding_pe_type: got 't5'; expected rope or alibi"),
    ({"sliding_window_size": 0}, "sliding_window_size: got 0; expected a positive whole number"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_hyperparameters_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = len(changes) == 0 or changes == {"num_attention_heads": 4}
    settings = changes if whole else {**PTH["A01"][1], **changes}
    with pytest.raises(UserError) as error:
        from_checkpoint(tmp_path, "A01", "miniwin", **settings)
    assert message in str(error.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("self_attn.q_norm.weight", torch.ones(2, 16), "num_attention_heads"),
        ("mlp.experts.0.w1.weight", torch.ones(2), "num_experts_per_tok"),
    ],
)
def test_shapes_that_nothing_can_be_inferred_from(name: str, tensor: Tensor, message: str, tmp_path: Path) -> None:
    """One message about the model, none about this program."""
    tensors = load_file(CASES["A05"] / "weights.safetensors") | {f"model.layers.0.{name}": tensor}
    torch.save(tensors, tmp_path / "pretrain.pth")
    with pytest.raises(UserError) as error:
        import_model(tmp_path / "pretrain.pth", tmp_path / "ours", family="minimind")
    assert message in str(error.value) and "Error:" not in str(error.value)
    assert not (tmp_path / "ours").exists()


def test_a_setting_of_another_kind(tmp_path: Path) -> None:
    said = {name: value for name, value in PTH["A01"][1].items() if name != "num_attention_heads"}
    with pytest.raises(UserError, match=r"head_dim: got \[16\]; expected a positive whole number"):
        from_checkpoint(tmp_path, "A01", "miniwin", **said, head_dim=[16])
