"""The gallery: full-size specs of published models, each with the published number of parameters and a tiny twin.

Everything here is computed from the spec or counted on the meta device: no weight of a full-size model is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import transformers
from helpers import RealTensors

from miniwin.explain import explanation
from miniwin.specs import ModelSpec, load_model_spec, shipped_specs


@dataclass(frozen=True)
class Published:
    """parameters, and those one token uses: exact where the source is (int), rounded as it prints them (float)."""

    parameters: int | float
    source: str
    active: int | float | None = None


HUB = "the checkpoint on the Hub"
PUBLISHED = {
    "miniwin-768": Published(54.47e6, "logs of MiniMind 2, whose shapes these are, for 8 layers of 768"),
    "miniwin-512": Published(25.83e6, "logs of MiniMind 2, whose shapes these are, for 8 layers of 512"),
    "minimind-3": Published(63.91e6, "logs of its code; 64M in its README"),
    "minimind-3-moe": Published(198.42e6, "printed by the code of MiniMind-O; 198M-A64M in the README", 63.94e6),
    "llama-3-8b": Published(8_030_261_248, HUB),
    "mistral-7b": Published(7_241_732_096, f"{HUB}, v0.1"),
    "smollm3-3b": Published(3_075_098_624, HUB),
    "command-r7b": Published(8.03e9, "model params of llama.cpp, github.com/ggml-org/llama.cpp/issues/10816"),
    "gemma-2-2b": Published(2_614_341_888, HUB),
    "gemma-3-1b": Published(999_885_952, HUB),
    "gemma-3-4b": Published(4_300_079_472 - 416_866_032 - 2_950_272, f"{HUB}, less vision encoder and projector"),
    "qwen3-0.6b": Published(751_632_384 - 151_936 * 1024, f"{HUB}, less the second copy of the tied embedding"),
    "phi-3-mini-4k": Published(3_821_079_552, HUB),
    "olmo-3-7b": Published(7_298_011_136, "total_parameters of the safetensors index on the Hub"),
    "gpt-oss-20b": Published(20_914_757_184, "20.91B in arXiv 2508.10925, table 1; exact from its shapes"),
    "exaone-4-32b": Published(32_003_216_384, "total_size of the safetensors index on the Hub, over two bytes"),
    "llama-4-scout": Published(108_641_793_536 - 871_932_416, f"{HUB}, less the vision part", 17_172_894_720),
    "gpt-neox-20b": Published(20_554_567_680, "n_parameters of the model card"),
    "qwen2.5-0.5b": Published(494_032_768, HUB),
    "gemma-2b": Published(2_506_172_416, HUB),
    "olmo-2-7b": Published(7.3e9, "the size that the Hub shows"),
    "mixtral-8x7b": Published(46_702_792_704, HUB),
    "granite-3.1-8b": Published(8.17e9, "the size that the Hub shows"),
    "gpt2": Published(124_439_808, HUB),
    "starcoder2-3b": Published(3_030_371_328, HUB),
    "nanochat-d20": Published(560_988_160, "model card of sampathchanda/nanochat-d20 on the Hub"),
}
UNPUBLISHED = {"gpt-oss-dense"}  # a variant of ours: no figure to compare with
GALLERY = sorted((*PUBLISHED, *UNPUBLISHED))

each = pytest.mark.parametrize("name", GALLERY)


@cache
def load(name: str) -> ModelSpec:
    return load_model_spec(name)


def active(spec: ModelSpec) -> int:
    layers: list[Any] = list(spec.layer_specs)
    idle = sum(layer.parameters(spec.hidden_size) - layer.active_parameters(spec.hidden_size) for layer in layers)
    return spec.parameters() - idle


def test_the_table_names_every_full_size_spec() -> None:
    names = set(shipped_specs("model"))
    assert {name for name in names if f"{name}-tiny" in names} == set(GALLERY)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    published = PUBLISHED[name]
    for ours, theirs in ((load(name).parameters(), published.parameters), (active(load(name)), published.active)):
        if theirs is not None:
            assert ours == pytest.approx(theirs, rel=1e-3), published.source
        if isinstance(theirs, int):
            assert ours == theirs, f"{published.source}: exact there, so exact here"


def test_published_counts_of_experts() -> None:
    """OpenAI counts the output embedding as used by a token and the input embedding as not; Meta counts both."""
    oss, embedding = load("gpt-oss-20b"), 201_088 * 2880
    assert active(oss) - embedding == pytest.approx(3.61e9, rel=1e-3)
    assert round(active(load("llama-4-scout")) / 1e9) == 17
    assert round(active(load("mixtral-8x7b")) / 1e8) == 129  # 12.9B on Mistral's page
    dense = load("gpt-oss-dense")
    assert dense.parameters() == active(oss) - 24 * (2880 * 32 + 32) - 24 * 3 * 2880  # no router, one output bias


def test_the_sizes_that_the_authors_of_miniwin_name() -> None:
    """eval_llm.py of github.com/Cominder/miniwin: 512 is "Small-26M", 768 "Base-104M" of 16 layers."""
    assert round(load("miniwin-512").parameters() / 1e6) == 26
    deep = load("miniwin-768").model_copy(update={"num_layers": 16})
    assert deep.parameters() == pytest.approx(104e6, rel=1e-3)
    assert load("miniwin-768").layout == load("miniwin-512").layout == "SSSGSSSG"


@each
def test_the_comment_says_how_many_parameters_and_from_where(name: str) -> None:
    comment = " ".join(line[1:] for line in shipped_specs("model")[name].read_text().splitlines() if line[:1] == "#")
    assert f"{load(name).parameters():,}" in comment
    assert "Parameters:" in comment and ("Numbers:" in comment or "The rest:" in comment or "config.json" in comment)


@each
def test_explained_without_allocating_weights(name: str) -> None:
    spec = load(name)
    with RealTensors() as made:
        facts = explanation(spec, [4096, 131_072], "bfloat16")
    assert facts["parameters"] == facts["built_parameters"] == spec.parameters()
    assert len(facts["layers"]) == spec.num_layers
    assert sum(row["cache_bytes"][131_072] for row in facts["layers"]) == facts["cache_bytes"][131_072] > 0
    # Frequencies and the like: a few thousand numbers a layer, never of the order of its weights.
    assert made.elements < 5000 * spec.num_layers and made.elements < spec.parameters() / 100


# What a twin may have smaller; everything else must be the same.
SIZES = {
    "name",
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "window",
    "chunk",
    "period",
    "intermediate_size",
    "num_experts",
    "experts_per_token",
    "original_max_position_embeddings",
    "floor",
    "score_scale",
    "embed_scale",
    "embed_positions",
    "logit_scale",
}


def structure(data: Any) -> Any:
    """A spec's data with its sizes taken out: whether each is there, and not how large."""
    if isinstance(data, dict):
        return {key: value is not None if key in SIZES else structure(value) for key, value in data.items()}
    return data


def proportions(spec: ModelSpec) -> Iterator[Any]:
    """What holds between sizes, and makes a model what it is."""
    yield spec.embed_scale is None or math.isclose(spec.embed_scale**2, spec.hidden_size)
    for _, layer in sorted(spec.blocks.items()):
        attention: Any = layer.resolve(spec.hidden_size).attention
        mlp: Any = layer.mlp
        yield attention.kv_heads == attention.num_heads
        yield attention.head_dim * attention.num_heads == spec.hidden_size
        yield attention.score_scale is None or math.isclose(attention.score_scale, attention.head_dim**-0.5)
        yield getattr(attention.position, "period", None) == attention.window
        if mlp.type == "moe":
            yield mlp.experts_per_token == 1, mlp.shared == mlp.expert


@each
def test_the_tiny_twin_has_the_structure_of_the_big_one(name: str) -> None:
    big, tiny = load(name), load(f"{name}-tiny")
    assert structure(tiny.model_dump(mode="json")) == structure(big.model_dump(mode="json"))
    assert set(tiny.layout) == set(big.layout) and tiny.layout[-1] == big.layout[-1]
    assert tiny.num_layers >= len(tiny.pattern) and tiny.num_layers < big.num_layers


@each
def test_the_tiny_twin_is_in_proportion(name: str) -> None:
    big, tiny = list(proportions(load(name))), list(proportions(load(f"{name}-tiny")))
    wide = [i for i, (b, t) in enumerate(zip(big, tiny, strict=True)) if b != t]
    assert not wide, f"{wide}: {big} against {tiny}"


def numbers(data: Any, *keys: str) -> Iterator[int]:
    """Every value of these keys, at any depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key in keys and value is not None:
                yield value
            yield from numbers(value, *keys)


@each
def test_the_tiny_twin_is_tiny_and_passed_within_a_test(name: str) -> None:
    tiny = load(f"{name}-tiny")
    assert tiny.parameters() <= 100_000
    assert 61 <= tiny.vocab_size <= 256
    assert all(n <= 40 for n in numbers(tiny.model_dump(), "window", "chunk", "period", "floor"))
    assert all(n <= 40 for n in numbers(tiny.model_dump(), "original_max_position_embeddings"))


def test_structure_sees_what_a_twin_must_share() -> None:
    """The comparison above can fail: each of these is another model."""
    big = load("gemma-3-4b").model_dump(mode="json")
    flags: dict[str, Any] = {"residual": "pre", "norm": {"type": "layernorm", "eps": 1e-5, "bias": False}, "mlp": None}
    for key, value in flags.items():
        other = {**big, "blocks": {**big["blocks"], "G": {**big["blocks"]["G"], key: value}}}
        assert structure(other) != structure(big), key
    assert structure({**big, "pattern": "SG"}) != structure(big)
    assert structure({**big, "embed_scale": None}) != structure(big)
    assert structure({**big, "vocab_size": 7}) == structure(big)


# Which layers are which, by transformers' own rule for the published fields.
LAYOUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "command-r7b": (transformers.Cohere2Config, {"sliding_window_pattern": 4}),
    "exaone-4-32b": (transformers.Exaone4Config, {"sliding_window_pattern": 4}),
    "gemma-2-2b": (transformers.Gemma2Config, {}),
    "gemma-3-1b": (transformers.Gemma3TextConfig, {"sliding_window_pattern": 6}),
    "gemma-3-4b": (transformers.Gemma3TextConfig, {"sliding_window_pattern": 6}),
    "gpt-oss-20b": (transformers.GptOssConfig, {}),
    "olmo-3-7b": (transformers.Olmo3Config, {}),
}
LETTERS = {"sliding_attention": "S", "full_attention": "G", "chunked_attention": "C"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_those_of_transformers(name: str) -> None:
    make, fields = LAYOUTS[name]
    config = make(num_hidden_layers=load(name).num_layers, **fields)
    assert "".join(LETTERS[kind] for kind in config.layer_types) == load(name).layout


def test_layouts_of_models_that_leave_positions_out() -> None:
    llama = transformers.Llama4TextConfig(num_hidden_layers=48)
    assert "".join(LETTERS[kind] for kind in llama.layer_types or []) == load("llama-4-scout").layout
    for name, make, rotary in (
        ("smollm3-3b", transformers.SmolLM3Config, "R"),
        ("llama-4-scout", transformers.Llama4TextConfig, "C"),
    ):
        layout = load(name).layout
        assert [int(letter == rotary) for letter in layout] == make(num_hidden_layers=len(layout)).no_rope_layers
        kinds = {letter: layer.attention.position.type for letter, layer in load(name).blocks.items()}  # type: ignore[attr-defined]
        assert kinds[rotary] == "rope" and [k for letter, k in kinds.items() if letter != rotary] == ["nope"]
