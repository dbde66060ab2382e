"""What a GGUF file means: every type of tensor in pieces, rotary factors, windows, and MiniWin's own exact config."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import ARRAY, STRING, Plain, Tensor

from miniwin.specs import ModelSpec
from miniwin.zoo.importing import import_model
from miniwin.zoo.importing.gguf import tensors as reading
from miniwin.zoo.importing.gguf.header import TensorInfo
from miniwin.zoo.importing.gguf.library import readable_kinds
from miniwin.zoo.importing.gguf.own_config import KEY
from miniwin.zoo.importing.gguf.rope import llama3_factors

gguf = pytest.importorskip("gguf")
KINDS = {name: kind for kind, (name, _, _) in readable_kinds().items()}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_type_is_read_in_pieces_as_the_library_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _, values, size = readable_kinds()[KINDS[name]]
    rows, width = 7, 2 * values
    raw = np.random.default_rng(0).integers(0, 256, (rows, 2 * size), dtype=np.uint8)
    (tmp_path / "file").write_bytes(b"before" + raw.tobytes() + b"after")
    info = TensorInfo("x", (rows, width), KINDS[name], tmp_path / "file", len(b"before"), raw.size)
    with np.errstate(all="ignore"):
        whole = torch.from_numpy(gguf.dequantize(raw, gguf.GGMLQuantizationType[name]))
    monkeypatch.setattr(reading, "PIECE", 3 * width)
    found = list(reading.pieces(info))
    assert [len(piece) for piece in found] == [3, 3, 1]
    for read in (torch.cat(found), reading.whole(info)):
        assert torch.equal(read.nan_to_num(), whole.nan_to_num())
    assert torch.equal(reading.whole(info, 2, 3).nan_to_num(), whole[2:5].nan_to_num())


def test_every_type_that_llama_cpp_quantises_to_is_readable() -> None:
    usual = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
    usual |= {f"IQ{name}" for name in ("2_XXS", "2_XS", "3_XXS", "1_S", "4_NL", "3_S", "2_S", "4_XS", "1_M")}
    assert usual | {"TQ1_0", "TQ2_0", "MXFP4"} <= set(KINDS) and "I32" not in KINDS


def spec_of(tmp_path: Path, fields: dict[str, tuple[int, Any]], factors: list[float] | None = None) -> ModelSpec:
    file = Plain()
    file.fields |= fields
    if factors is not None:
        file.tensors["rope_freqs.weight"] = Tensor((4,), 0, struct.pack("<4f", *factors))
    path = tmp_path / f"model{len(list(tmp_path.iterdir()))}.gguf"
    path.write_bytes(file.bytes())
    return import_model(path, path.with_suffix("")).spec


def position(spec: ModelSpec) -> Any:
    return spec.layer_specs[0].attention.position  # type: ignore[union-attr]


def test_factors_of_a_published_scaling_become_it(tmp_path: Path) -> None:
    said = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    factors = llama3_factors(said, 5e5, 8).tolist()
    scaling = position(spec_of(tmp_path, {"llama.rope.freq_base": (6, 5e5)}, factors)).scaling
    assert (scaling.type, scaling.factor) == ("llama3", 8.0)
    assert scaling.original_max_position_embeddings == 8192


def test_any_other_factors_divide_the_same_frequencies(tmp_path: Path) -> None:
    scaling = position(spec_of(tmp_path, {}, [1.0, 1.5, 2.0, 7.0])).scaling
    assert scaling.type == "longrope" and scaling.attention_factor == 1.0
    assert list(scaling.short_factor) == list(scaling.long_factor) == [1.0, 1.5, 2.0, 7.0]


def test_scalings_of_metadata(tmp_path: Path) -> None:
    linear = {"llama.rope.scaling.type": (STRING, "linear"), "llama.rope.scaling.factor": (6, 4.0)}
    scaling = position(spec_of(tmp_path, linear)).scaling
    assert (scaling.type, scaling.factor) == ("linear", 4.0)
    yarn = linear | {
        "llama.rope.scaling.type": (STRING, "yarn"),
        "llama.rope.scaling.original_context_length": (4, 32),
    }
    scaling = position(spec_of(tmp_path, yarn)).scaling
    assert (scaling.type, scaling.factor, scaling.original_max_position_embeddings) == ("yarn", 4.0, 32)


def test_numbers_are_those_that_their_author_wrote(tmp_path: Path) -> None:
    """1e-5 in float32 is 9.99999974738e-06. The file of a model with 1e-5 gives 1e-5 again."""
    assert spec_of(tmp_path, {}).norm.eps == 1e-5  # type: ignore[attr-defined]


def test_our_own_config_refines_the_metadata_and_never_contradicts_it(tmp_path: Path) -> None:
    eps = 1e-5 * (1 + 1e-9)  # the same in float32
    said = {"rms_norm_eps": eps, "hidden_size": 999, "sliding_window": 7, "initializer_range": 0.5}
    spec = spec_of(tmp_path, {KEY: (STRING, json.dumps(said))})
    assert spec.norm.eps == eps and spec.hidden_size == 16 and spec.init.std == 0.5  # type: ignore[attr-defined]
    assert spec.layer_specs[0].attention.window is None  # type: ignore[union-attr]
    other = {KEY: (STRING, json.dumps({**said, "rms_norm_eps": 1e-4}))}
    assert spec_of(tmp_path, other).norm.eps == 1e-5  # type: ignore[attr-defined]
    for broken in ("", "[", "[1]", "null"):
        assert spec_of(tmp_path, {KEY: (STRING, broken)}).norm.eps == 1e-5  # type: ignore[attr-defined]


def test_a_value_for_each_layer_that_is_the_same(tmp_path: Path) -> None:
    plain = spec_of(tmp_path, {})
    assert spec_of(tmp_path, {"llama.attention.head_count": (ARRAY, (4, [2, 2]))}) == plain.model_copy(
        update={"name": "model2"}
    )
