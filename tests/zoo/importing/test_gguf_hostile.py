"""Importing GGUF files that are broken or mean harm: one clear error, nothing written, and no memory for what is only
said to be there."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_files import ARRAY, STRING, Plain, Tensor, text
from tiny import run_cli

import miniwin
from miniwin.specs import UserError
from miniwin.zoo.importing import import_model

pytest.importorskip("gguf")


def refused(path: Path, message: str, **options: Any) -> None:
    """The import is one UserError of one line, and leaves no trace beside the source."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        import_model(path, path.parent / "new" / "out", **options)
    assert len(str(caught.value)) < 900, str(caught.value)
    assert sorted(path.parent.rglob("*")) == before


def test_the_plain_file_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "Small Llama.gguf"
    path.write_bytes(Plain().bytes())
    made = import_model(path, tmp_path / "out")
    assert made.spec.name == "small-llama" and made.record["kind"] == "gguf" and not made.notes
    model = miniwin.load(str(tmp_path / "out"))
    assert model.ends == (1,) and model.tokenizer is not None and model.tokenizer.encode('"!') == [3, 2]


def change(**fields: Any) -> Callable[[Plain], None]:
    return lambda file: file.fields.update(fields)


def llama(name: str, kind: int, value: Any) -> Callable[[Plain], None]:
    return lambda file: file.fields.update({f"llama.{name}": (kind, value)})


def general(name: str, kind: int, value: Any) -> Callable[[Plain], None]:
    return lambda file: file.fields.update({f"general.{name}": (kind, value)})


def tokens(name: str, kind: int, value: Any) -> Callable[[Plain], None]:
    return lambda file: file.fields.update({f"tokenizer.ggml.{name}": (kind, value)})


def tensor(name: str, **fields: Any) -> Callable[[Plain], None]:
    return lambda file: file.tensors[name].__dict__.update(fields)


def without(name: str) -> Callable[[Plain], None]:
    def edit(file: Plain) -> None:
        file.fields.pop(name, None)
        file.tensors.pop(name, None)

    return edit


def set_(**values: Any) -> Callable[[Plain], None]:
    return lambda file: file.__dict__.update(values)


def beyond(file: Plain) -> None:
    file.fields |= {"tokenizer.ggml.bos_token_id": (4, 99), "tokenizer.ggml.add_bos_token": (7, True)}


def infinite(file: Plain) -> None:
    one = file.tensors["blk.0.attn_q.weight"]
    one.data = struct.pack("<f", float("inf")) + one.data[4:]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_(magic=b"GGML"), r"does not begin with GGUF, so it is no GGUF file"),
        (set_(version=1), r"GGUF version 1; expected 2 or 3; convert the model anew"),
        (set_(version=0x03000000), r"a file for machines with the other byte order"),
        (set_(tensor_count=2**63), r"says that it has 9,223,372,036,854,775,808 tensors, which cannot be"),
        (set_(field_count=2**40), r"says that it has 1,099,511,627,776 fields of metadata, which cannot be"),
        (set_(field_count=60_000), r"says that it has 60,000 fields|needs \d+ bytes|said to have"),
        (change(**{"x.y": (ARRAY, (ARRAY, []))}), r"metadata 'x\.y' is an array of arrays"),
        (
            lambda file: file.fields.update({"general.alignment": (4, 24)}),
            r"alignment: got 24; expected a power",
        ),
        (general("alignment", 4, 0), r"general\.alignment: got 0"),
        (
            lambda file: file.fields.update({"general.architecture": (4, 7)}),
            r"general\.architecture: got 7",
        ),
        (
            general("architecture", STRING, "rwkv6"),
            r"general\.architecture: got 'rwkv6', which cannot be imported; known are cohere2, exaone4, gemma",
        ),
        (
            lambda file: file.fields.update({"general.type": (STRING, "adapter")}),
            r"general\.type: got 'adapter'; expected mo",
        ),
        (without("general.architecture"), r"general\.architecture: got null; expected a name, such as llama"),
        (without("llama.block_count"), r"llama\.block_count: missing; expected a positive whole number"),
        (llama("block_count", 10, 2**40), r"llama\.block_count: got 1099511627776; the file has 20 tensors"),
        (llama("block_count", 4, 3), r"model\.layers\.2\..* missing"),
        (llama("block_count", 4, 1), r"blk\.1\.attn_k\.weight.* not of the model that its metadata describes"),
        (
            llama("embedding_length", 10, 2**40),
            r"describes a model that cannot be built: hidden_size: got 1099511627776",
        ),
        (llama("attention.head_count", 4, 0), r"head_count: got 0; expected a positive whole number"),
        (llama("attention.head_count", STRING, "two"), r"head_count: got 'two'; expected a positive"),
        (llama("attention.head_count", ARRAY, (4, [2, 1])), r"got an array of 2; layers differ"),
        (
            llama("attention.layer_norm_rms_epsilon", 6, float("nan")),
            r"epsilon: got \.nan; expected a number",
        ),
        (llama("rope.dimension_count", 4, 3), r"rope\.dimension_count: got 3; expected an even number of at most 8"),
        (
            llama("rope.scaling.type", STRING, "spiral"),
            r"rope\.scaling\.type: got 'spiral'; expected none",
        ),
        (
            llama("expert_shared_count", 4, 2),
            r"llama\.expert_shared_count: got 2; it is not known here",
        ),
        (without("token_embd.weight"), r"there is no tensor token_embd\.weight"),
        (without("blk.1.ffn_up.weight"), r"model\.layers\.1\.mlp\.up_proj\.weight missing"),
        (
            tensor("blk.0.attn_q.weight", kind=999),
            r"'blk\.0\.attn_q\.weight' has type 999, which is not known",
        ),
        (tensor("blk.0.attn_q.weight", kind=26), r"has type 26, which is not known here"),  # I32
        (tensor("blk.0.attn_q.weight", kind=2), r"Q4_0 needs rows of a multiple of 32 numbers"),
        (tensor("blk.0.attn_q.weight", dims=(16, 0)), r"has shape \[0, 16\]"),
        (tensor("blk.0.attn_q.weight", dims=(2**60, 2**60)), r"not within the file"),
        (tensor("blk.0.attn_q.weight", dims=(1,) * 5), r"has 5 dimensions; expected 1 to 4"),
        (tensor("blk.0.attn_q.weight", dims=(8, 32)), r"q_proj\.weight has shape \(32, 8\); expected \(16, 16\)"),
        (
            tensor("blk.0.attn_q.weight", offset=2**62),
            r"said to be at 4611686018427387904, ",
        ),
        (tensor("blk.0.attn_q.weight", offset=1), r"said to be at 1, "),
        (tensor("blk.0.attn_q.weight", offset=0), r"tensors '.*' and '.*' overlap"),
        (infinite, r"q_proj\.weight holds 1 NaN or infinite value of 256"),
        (
            tokens("model", STRING, "t5"),
            r"tokenizer\.ggml\.model: got 't5', a kind of tokenizer",
        ),
        (tokens("pre", STRING, "qwen1"), r"tokenizer\.ggml\.pre: got 'qwen1'; a way to split text .* mean qwen2\?"),
        (tokens("pre", 4, 5), r"tokenizer\.ggml\.pre: got 5"),
        (tokens("tokens", 4, 5), r"tokenizer\.ggml\.tokens: got 5; expected a list of texts"),
        (tokens("token_type", ARRAY, (5, [1])), r"token_type: got an array of 1; expected a number for each of 24"),
        (tokens("merges", ARRAY, (STRING, ["ab"])), r"'ab' is not two tokens with a space between"),
        (
            tokens("merges", ARRAY, (STRING, ['" #'])),
            r"merges: '\"' and '#': one of them, or both",
        ),
        (beyond, r"bos_token_id: got 99; expected an id below 24"),
        (tokens("eos_token_id", STRING, "x"), r"eos_token_id: got 'x'; expected an id"),
        (tokens("add_bos_token", 4, 1), r"add_bos_token: got 1; expected true or false"),
        (tokens("eos_token_id", ARRAY, (4, [1, 2])), r"eos_token_id: got an array of 2; expected an id"),
        (tokens("model", ARRAY, (STRING, ["gpt2"])), r"tokenizer\.ggml\.model: got an array of 1, a kind of tokenizer"),
        (tokens("pre", ARRAY, (STRING, ["gpt-2"])), r"tokenizer\.ggml\.pre: got an array of 1; a way to split text"),
        (tokens("tokens", ARRAY, (4, [1] * 24)), r"tokenizer\.ggml\.tokens: got an array of 24; expected a list of t"),
        (general("type", ARRAY, (4, [1, 2])), r"general\.type: got an array of 2; expected model"),
        (llama("attention.causal", ARRAY, (7, [True, False])), r"causal: got an array of 2; it is not known here"),
    ],
)
def test_one_clear_error(tmp_path: Path, edit: Callable[[Plain], None], message: str) -> None:
    file = Plain()
    edit(file)
    path = tmp_path / "broken.gguf"
    path.write_bytes(file.bytes())
    refused(path, message)


def test_a_field_or_tensor_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.gguf"
    whole = Plain().bytes()
    path.write_bytes(whole.replace(text("general.name"), text("llama.block_count")[:20]))
    refused(path, r"twice\.gguf")
    file = Plain()
    file.tensors["blk.0.attn_Q.weight"] = Tensor((16, 16), 0, b"\0" * 1024)
    path.write_bytes(file.bytes().replace(text("blk.0.attn_Q.weight"), text("blk.0.attn_q.weight")))
    refused(path, r"tensor 'blk\.0\.attn_q\.weight' is there twice")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.05, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short(tmp_path: Path, share: float) -> None:
    whole = Plain().bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, r"short\.gguf: .*(fetch it again|which cannot be)")


def test_nothing_is_allocated_for_what_is_only_said(tmp_path: Path) -> None:
    """Lengths of strings and arrays that the file does not hold."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    path = tmp_path / "long.gguf"
    for rest in (
        struct.pack("<Q", 2**63),
        text("k") + struct.pack("<IQ", STRING, 2**50),
        text("k") + struct.pack("<IIQ", ARRAY, STRING, 2**60),
        text("k") + struct.pack("<IIQ", ARRAY, 12, 2**60),
        text("k") + struct.pack("<IIQ", ARRAY, 77, 1),
        text("k") + struct.pack("<I", 77),
    ):
        path.write_bytes(head + rest + b"\0" * 64)
        tracemalloc.start()
        refused(path, r"long\.gguf: ")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 8 << 20


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    """Bytes of the header are changed at random. Each file is imported, or refused in one line."""
    whole, drawn = Plain().bytes(), random.Random(0)
    header = whole.index(b"ffn_up") + 2000
    path = tmp_path / "fuzzed.gguf"
    fine = 0
    for turn in range(120):
        raw = bytearray(whole)
        for _ in range(drawn.choice((1, 2, 8))):
            raw[drawn.randrange(header)] = drawn.choice((0, 1, 0x7F, 0xFF, drawn.randrange(256)))
        path.write_bytes(raw)
        try:
            import_model(path, tmp_path / f"out{turn}")
            fine += 1
        except UserError as error:
            assert "\n" not in str(error)
            assert not (tmp_path / f"out{turn}").exists()
    assert 0 < fine < 120


def test_the_command_says_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF")
    code, out, err = run_cli("import", str(path), "--to", str(tmp_path / "out"))
    assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from miniwin.zoo.importing.gguf import library

    library.readable_kinds.cache_clear()
    monkeypatch.setitem(sys.modules, "gguf", None)
    path = tmp_path / "model.gguf"
    path.write_bytes(Plain().bytes())
    try:
        refused(path, r"GGUF needs the package gguf, which is not installed: pip install 'miniwin\[gguf\]'")
    finally:
        library.readable_kinds.cache_clear()


# -- tokenizers that are not what they seem, and shards


def test_another_tokenizer_can_be_given(tmp_path: Path) -> None:
    file = Plain()
    file.fields["tokenizer.ggml.model"] = (STRING, "rwkv")
    path = tmp_path / "model.gguf"
    path.write_bytes(file.bytes())
    refused(path, r"give --tokenizer a tokenizer\.json, or none to import without it")
    assert import_model(path, tmp_path / "out", tokenizer="none").tokenizer is None


def shard(folder: Path) -> tuple[Path, Path]:
    """The plain file as two shards."""
    paths = []
    for number in range(2):
        file = Plain()
        names = list(file.tensors)[number::2]
        file.tensors = {name: file.tensors[name] for name in names}
        file.fields = file.fields if number == 0 else {}
        file.fields |= {"split.no": (2, number), "split.count": (2, 2), "split.tensors.count": (5, 20)}
        paths.append(folder / f"small-{number + 1:05}-of-00002.gguf")
        paths[-1].write_bytes(file.bytes())
    return paths[0], paths[1]


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = tmp_path / "small.gguf"
    whole.write_bytes(Plain().bytes())
    plain = import_model(whole, tmp_path / "plain")
    first, second = shard(tmp_path)
    for path in (first, second):
        made = import_model(path, tmp_path / path.stem)
        assert made.spec == plain.spec and set(made.record["files"]) == {first.name, second.name}
        assert (made.folder / "model.safetensors").read_bytes() == (plain.folder / "model.safetensors").read_bytes()


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second = shard(tmp_path)
    other = first.read_bytes()
    kept = second.read_bytes()
    second.write_bytes(other)
    refused(first, r"small-00002-of-00002\.gguf: says that it is file 0 \(split\.no, from 0\) of 2; expected 1 of 2")
    second.unlink()
    refused(first, r"of 2 files of this model small-00002-of-00002\.gguf is missing; fetch it too")
    second.write_bytes(kept)
    renamed = first.rename(tmp_path / "first.gguf")
    refused(renamed, r"one of 2 files of a model; they find each other by their names")
