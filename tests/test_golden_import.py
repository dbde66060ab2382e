"""The golden cases once more, as a user brings them in: `import_model` on each case's `config.json` and weights.

What `tests/test_golden.py` checks of specs made from a case's description holds of specs made from its config: logits
of prefill and decode, and every layer's output.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from float64 import assert_as_near, doubled
from helpers import largest
from paths import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec, UserError, load_model_spec
from miniwin.zoo.importing.converting import import_model

FOLDERS = {path.parent.name[:3]: path.parent for path in GOLDEN.glob("*/case.yaml")}
every_case = pytest.mark.parametrize("case", sorted(FOLDERS))


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """case -> its spec and decoder, imported once."""

    @cache
    def bring(case: str) -> tuple[ModelSpec, Decoder]:
        folder = tmp_path_factory.mktemp(case)
        (folder / "source").mkdir()
        shutil.copy(FOLDERS[case] / "config.json", folder / "source")
        shutil.copy(FOLDERS[case] / "weights.safetensors", folder / "source" / "model.safetensors")
        import_model(folder / "source", folder / "ours", name=case.lower())
        spec = load_model_spec(folder / "ours" / "model.yaml")
        decoder = spec.build().eval()
        decoder.load_state_dict(load_file(folder / "ours" / "model.safetensors"), strict=True)
        return spec, decoder

    return bring


def holds(case: str, ours: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """The source's float32 is our float64 within the case's tolerance, and our float32 is as near to it."""
    fields = yaml.safe_load((FOLDERS[case] / "case.yaml").read_text())
    assert largest(theirs, exact) < fields["tolerance"]["suggested_atol_float32_logits"]
    assert_as_near(ours, theirs, exact)


def test_all_ten_cases_are_here() -> None:
    assert sorted(FOLDERS) == [f"A{i:02}" for i in range(1, 11)]


def decoded(decoder: Decoder, ids: Tensor) -> Tensor:
    cache = decoder.new_cache(len(ids))
    return torch.cat([decoder(token, cache=cache) for token in ids.split(1, dim=1)], dim=1)


def hidden_states(decoder: Decoder, ids: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    for i, layer in enumerate(decoder.layers):
        layer.register_forward_hook(lambda _m, _a, out, i=i: seen.__setitem__(f"hidden.layer{i}", out))
        layer.attention.register_forward_hook(lambda _m, _a, out, i=i: seen.__setitem__(f"attn_out.layer{i}", out))
    decoder(ids)
    return seen


@every_case
@torch.no_grad()
def test_logits(case: str, brought: Any) -> None:
    _, decoder = brought(case)
    io = load_file(FOLDERS[case] / "io.safetensors")
    holds(case, decoder(io["input_ids"]), io["logits.prefill"], doubled(decoder)(io["input_ids"]))
    holds(case, decoded(decoder, io["input_ids"]), io["logits.decode"], decoded(doubled(decoder), io["input_ids"]))


@every_case
@torch.no_grad()
def test_every_layer(case: str, brought: Any) -> None:
    _, decoder = brought(case)
    io = load_file(FOLDERS[case] / "io.safetensors")
    seen, exact = hidden_states(decoder, io["input_ids"]), hidden_states(doubled(decoder), io["input_ids"])
    assert len(seen) == 2 * len(decoder.layers)
    for key, value in seen.items():
        holds(case, value, io[key], exact[key])


def test_the_patterns_are_those_of_the_configs(brought: Any) -> None:
    layouts = {case: brought(case)[0].layout for case in ("A01", "A04", "A08", "A10")}
    assert layouts == {"A01": "SSSGSG", "A04": "SSSGSG", "A08": "GGGHGG", "A10": "SSSS"}


def from_checkpoint(tmp_path: Path, case: str, family: str, **settings: Any) -> tuple[ModelSpec, Decoder]:
    """Imported from the weights alone, as a `.pth`."""
    torch.save(load_file(FOLDERS[case] / "weights.safetensors"), tmp_path / "pretrain.pth")
    import_model(tmp_path / "pretrain.pth", tmp_path / "ours", name="from-pth", family=family, settings=settings)
    spec = load_model_spec(tmp_path / "ours" / "model.yaml")
    decoder = spec.build().eval()
    decoder.load_state_dict(load_file(tmp_path / "ours" / "model.safetensors"), strict=True)
    return spec, decoder


PTH = {
    "A01": ("miniwin", {"num_attention_heads": 4, "sliding_window_size": 16, "attention_pattern": "SSSL"}),
    "A03": ("miniwin", {"num_attention_heads": 4, "sliding_window_size": 16, "attention_pattern": "SSSL"}),
    "A05": ("minimind", {}),
}
EXTRA: dict[str, dict[str, Any]] = {"A01": {"rope_theta": 10000.0}, "A03": {"sliding_pe_type": "alibi"}, "A05": {}}


@pytest.mark.parametrize("case", sorted(PTH))
@torch.no_grad()
def test_a_checkpoint_without_config(case: str, tmp_path: Path, brought: Any) -> None:
    """The shapes say the sizes, the user the rest; the model is the same as from its config."""
    family, settings = PTH[case]
    spec, decoder = from_checkpoint(tmp_path, case, family, **settings, **EXTRA[case])
    assert spec.hash == brought(case)[0].hash
    io = load_file(FOLDERS[case] / "io.safetensors")
    holds(case, decoder(io["input_ids"]), io["logits.prefill"], doubled(decoder)(io["input_ids"]))
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
    tensors = load_file(FOLDERS["A05"] / "weights.safetensors") | {f"model.layers.0.{name}": tensor}
    torch.save(tensors, tmp_path / "pretrain.pth")
    with pytest.raises(UserError) as error:
        import_model(tmp_path / "pretrain.pth", tmp_path / "ours", family="minimind")
    assert message in str(error.value) and "Error:" not in str(error.value)
    assert not (tmp_path / "ours").exists()


def test_a_setting_of_another_kind(tmp_path: Path) -> None:
    said = {name: value for name, value in PTH["A01"][1].items() if name != "num_attention_heads"}
    with pytest.raises(UserError, match=r"head_dim: got \[16\]; expected a positive whole number"):
        from_checkpoint(tmp_path, "A01", "miniwin", **said, head_dim=[16])
