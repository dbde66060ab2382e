"""Import and export of the Llama-like Hugging Face families against transformers: tiny models with random weights, of
configurations drawn at random, at lengths past every window and original context.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_pairs import assert_as_varied
from float64 import assert_exact
from hf_models import (
    TINY,
    compare,
    config_of,
    exported,
    held,
    hf_logits,
    hf_model,
    imported,
    meaning,
    random_ids,
    saved,
    spec_of,
)
from safetensors.torch import load_file

from miniwin.specs import load_model_spec
from miniwin.zoo.importing.converting import import_model
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import CannotSay

# By number: chosen so that more pairs of values meet than in twenty draws taken blindly, see drawn_pairs.py.
DRAWS = {
    "exaone4": (5, 40, 160, 6, 194, 57, 395, 502, 512, 69, 570),
    "llama": (0, 207, 100, 147, 64, 94, 388, 67, 30, 80),
    "mistral": (0, 3, 483, 83, 239, 24, 75, 336, 487, 578, 154, 373),
    "olmo3": (0, 13, 397, 488, 252, 493, 3, 4, 584, 123),
    "phi3": (0, 30, 57, 3, 41, 10, 18, 405, 21, 25),
    "qwen3": (0, 80, 106, 346, 262, 36, 433, 199, 217, 281, 368),
    "smollm3": (4, 535, 111, 138, 8, 64, 425, 35, 115, 176, 519),
}
LENGTH = 71
ORIGINAL = 24  # context before scaling: the test is run far beyond it
FULL, SLIDING = "full_attention", "sliding_attention"
FAMILY_NAMES = ("exaone4", "llama", "mistral", "olmo3", "phi3", "qwen3", "smollm3")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------- drawing configurations


def sizes(rng: random.Random) -> dict[str, Any]:
    heads = rng.choice([2, 4, 6])
    return {
        "num_hidden_layers": rng.choice([2, 3, 4]),
        "hidden_size": heads * 8,
        "intermediate_size": rng.choice([24, 40]),
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([kv for kv in (1, 2, 3, 4, 6) if heads % kv == 0]),
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
        "hidden_act": rng.choice(["silu", "silu", "gelu", "gelu_pytorch_tanh"]),
        "tie_word_embeddings": rng.random() < 0.5,
        "max_position_embeddings": rng.choice([64, 512]),
    }


def scaling(rng: random.Random, theta: float) -> dict[str, Any]:
    """Rotary parameters of any kind that is not LongRoPE, in the form of transformers 5."""
    kind = rng.choice(["default", "linear", "dynamic", "yarn", "yarn", "llama3"])
    said: dict[str, Any] = {"rope_type": kind, "rope_theta": theta}
    if kind != "default":
        said["factor"] = rng.choice([1.5, 4.0, 8.0])
    if kind == "yarn":
        said["original_max_position_embeddings"] = ORIGINAL
        ratio = {"mscale": 1.0, "mscale_all_dim": 0.7}
        # Bounds that lie inside: with a context of 24 the default ones are clamped to the first pair.
        bounds = {"beta_fast": 0.5, "beta_slow": 0.02, "truncate": False}
        said |= rng.choice([{}, {"truncate": False}, {"attention_factor": 0.8}, ratio, bounds])
    if kind == "llama3":
        said |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL}
    return said


def head_dim(rng: random.Random) -> dict[str, Any]:
    return rng.choice([{}, {"head_dim": 6}, {"head_dim": 16}])


def layer_types(rng: random.Random, n: int) -> list[str]:
    return [rng.choice([FULL, SLIDING]) for _ in range(n)]


def draw_llama(rng: random.Random) -> dict[str, Any]:
    biases = {"attention_bias": rng.random() < 0.5, "mlp_bias": rng.random() < 0.5}
    return sizes(rng) | biases | head_dim(rng) | {"rope_parameters": scaling(rng, rng.choice([1e4, 5e5]))}


def draw_mistral(rng: random.Random) -> dict[str, Any]:
    window = rng.choice([None, 2, 7, 20, 100])
    return sizes(rng) | head_dim(rng) | {"sliding_window": window, "rope_parameters": scaling(rng, 1e4)}


def draw_smollm3(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | {"attention_bias": rng.random() < 0.5, "mlp_bias": rng.random() < 0.5}
    n = said["num_hidden_layers"]
    said |= rng.choice(
        [
            {"no_rope_layer_interval": rng.choice([2, 3])},
            {"no_rope_layers": [rng.choice([0, 1]) for _ in range(n)]},
        ]
    )
    if rng.random() < 0.5:
        said |= {"use_sliding_window": True, "sliding_window": rng.choice([5, 19])}
        said |= rng.choice([{}, {"layer_types": layer_types(rng, n)}])
    return said | {"rope_parameters": scaling(rng, 5e4)}


def draw_qwen3(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | {"attention_bias": rng.random() < 0.5} | {"head_dim": rng.choice([6, 8, 16])}
    n = said["num_hidden_layers"]
    if rng.random() < 0.6:
        said |= {"use_sliding_window": True, "sliding_window": rng.choice([5, 19])}
        said |= rng.choice([{"max_window_layers": rng.randrange(n + 1)}, {"layer_types": layer_types(rng, n)}])
    return said | {"rope_parameters": scaling(rng, 1e4)}


def draw_phi3(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | {"hidden_act": rng.choice(["silu", "gelu"]), "sliding_window": rng.choice([None, 9, 30])}
    share = rng.choice([1.0, 0.5, 0.75])
    said |= {"max_position_embeddings": 96, "original_max_position_embeddings": ORIGINAL}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share}
    if rng.random() < 0.6:
        pairs = int(8 * share) // 2
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL}
        rope |= {key: [round(rng.uniform(1, 5), 2) for _ in range(pairs)] for key in ("short_factor", "long_factor")}
        rope |= rng.choice([{}, {"factor": 2.0}, {"attention_factor": 1.3}])
    return said | {"rope_parameters": rope}


def draw_olmo3(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | {"attention_bias": rng.random() < 0.5, "sliding_window": rng.choice([5, 19])}
    said |= rng.choice([{}, {"layer_types": layer_types(rng, said["num_hidden_layers"])}])
    full = scaling(rng, rng.choice([1e4, 5e5]))
    full.pop("truncate", None)
    if full["rope_type"] == "dynamic":  # transformers cannot: it loses the layer type on the way
        full = {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}
    local = {"rope_type": "default", "rope_theta": 1e4}
    return said | {"rope_parameters": {FULL: full, SLIDING: local}}


def draw_exaone4(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | head_dim(rng)
    n = said["num_hidden_layers"]
    said |= {"sliding_window": None, "layer_types": [FULL] * n}
    if rng.random() < 0.7:
        said |= {"sliding_window": rng.choice([5, 19]), "layer_types": layer_types(rng, n)}
        if rng.random() < 0.4:
            said |= {"sliding_window_pattern": rng.choice([2, 3]), "layer_types": None}
    return said | {"rope_parameters": scaling(rng, 1e4)}


DRAW: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "exaone4": draw_exaone4,
    "llama": draw_llama,
    "mistral": draw_mistral,
    "olmo3": draw_olmo3,
    "phi3": draw_phi3,
    "qwen3": draw_qwen3,
    "smollm3": draw_smollm3,
}


def drawn(family: str, draw: int) -> dict[str, Any]:
    return DRAW[family](random.Random(f"{family} {draw}"))


def rope_kind(said: dict[str, Any]) -> str:
    rope = said["rope_parameters"]
    return str(rope.get(FULL, rope)["rope_type"])


@pytest.mark.parametrize(("family", "draw"), [(family, draw) for family in FAMILY_NAMES for draw in DRAWS[family]])
def test_drawn_configurations(family: str, draw: int, tmp_path: Path) -> None:
    """Prefill and decode of both sides; then our config and weights as a model of transformers, and back as a spec."""
    said, place = drawn(family, draw), DRAWS[family].index(draw)
    model = hf_model(family, seed=draw, **said)
    dynamic = rope_kind(said) == "dynamic"
    asked = {"length": LENGTH} if dynamic else {}
    spec, decoder = imported(model, tmp_path, **asked) if place % 3 == 0 else held(model, **asked)
    ids = random_ids(LENGTH, seed=draw, batch=1 + place % 2)
    # Where the rotation depends on the length at hand, their decoding follows their prefill only once they are past the
    # original context, and of a model that has seen this length.
    whole = place == 0  # every token decoded by itself; else the last ones, see test_contract.py
    first = 1 if whole and rope_kind(said) not in ("dynamic", "longrope") else LENGTH - 2
    theirs = first if place % 3 == 0 else None  # their own decoding is looked at in some
    exact = compare(model, decoder, ids, hf_prefill=theirs, our_prefill=1 if whole else LENGTH - 2)

    if dynamic and any(getattr(layer.attention.position, "scaling", None) for layer in spec.layer_specs):
        with pytest.raises(CannotSay, match="scaling: got dynamic-ntk for one length; transformers changes it"):
            FAMILIES[family].config(spec)
        return
    again = exported(FAMILIES[family], spec, decoder)
    assert_exact(hf_logits(again, ids), exact)
    config = json.loads(json.dumps(FAMILIES[family].config(spec)))
    assert meaning(spec_of(config)) == meaning(spec)
    assert meaning(spec_of(json.loads(again.config.to_json_string()))) == meaning(spec)


def test_the_draws_cover_what_they_should() -> None:
    every = {family: [drawn(family, draw) for draw in DRAWS[family]] for family in FAMILY_NAMES}
    for family, chosen in every.items():
        assert_as_varied(chosen, [drawn(family, draw) for draw in range(20)])
    for family, draws in every.items():
        kinds = {rope_kind(said) for said in draws}
        expected = {"default", "longrope"} if family == "phi3" else {"default", "linear", "yarn", "llama3"}
        assert kinds >= expected, family
        for field in ("tie_word_embeddings", "num_key_value_heads", "num_hidden_layers", "hidden_act"):
            assert len({said[field] for said in draws}) > 1
    assert {said["rope_parameters"]["partial_rotary_factor"] for said in every["phi3"]} == {0.5, 0.75, 1.0}
    assert {said["sliding_window"] for said in every["mistral"]} >= {None, 7, 20}


# ----------------------------------------------------------------------------------------------------- through files


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_import_of_a_folder(family: str, tmp_path: Path) -> None:
    model = hf_model(family, seed=7, **({"head_dim": 8} if family == "qwen3" else {}))
    saved(model, tmp_path / "source")
    import_model(tmp_path / "source", tmp_path / "ours")
    decoder = load_model_spec(tmp_path / "ours" / "model.yaml").build().eval()
    decoder.load_state_dict(load_file(tmp_path / "ours" / "model.safetensors"), strict=True)
    compare(model, decoder, random_ids(40), hf_prefill=35, our_prefill=33)


@pytest.mark.parametrize("family", ["llama", "olmo3", "phi3"])
def test_older_configs_mean_what_transformers_reads_in_them(family: str, tmp_path: Path) -> None:
    """The files that the models were published with, before transformers 5 rewrote rotary parameters."""
    old = {
        "llama": {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "olmo3": {
            "rope_theta": 5e5,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
        },
        "phi3": {
            "rope_theta": 1e4,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.5, 2.0, 2.5],
                "long_factor": [2, 3, 4, 5],
            },
            "max_position_embeddings": 96,
            "original_max_position_embeddings": ORIGINAL,
        },
    }[family]
    window = {"sliding_window": 9} if family == "olmo3" else {}
    fields = {**config_of(family), **old, **window}
    del fields["rope_parameters"]
    theirs = {name: value for name, value in fields.items() if name != "model_type"}
    spec, decoder = imported(hf_model(family, seed=3, **theirs), tmp_path)
    assert meaning(spec_of(fields)) == meaning(spec)
    compare(hf_model(family, seed=3, **theirs), decoder, random_ids(60), hf_prefill=50, our_prefill=50)


# ------------------------------------------------------------------------------------------------------ MiniMind's MoE


@pytest.mark.parametrize(("per_token", "normalise"), [(1, True), (2, True), (2, False)])
def test_minimind_with_experts(per_token: int, normalise: bool, tmp_path: Path) -> None:
    """What MiniMind's mixture computes is what Qwen3's does, under the same names: the one is checked by the other."""
    model = hf_model(
        "qwen3_moe",
        seed=5,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=per_token,
        norm_topk_prob=normalise,
        moe_intermediate_size=24,
        decoder_sparse_step=1,
        tie_word_embeddings=True,
    )
    saved(model, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    kept = {name: config[name] for name in (*TINY, "head_dim", "num_experts_per_tok", "norm_topk_prob")}
    kept |= {"model_type": "minimind", "use_moe": True, "num_experts": 4, "moe_intermediate_size": 24}
    kept["rope_theta"] = 1e4
    path.write_text(json.dumps(kept))
    import_model(tmp_path, tmp_path / "ours", name="minimind-moe")
    decoder = load_model_spec(tmp_path / "ours" / "model.yaml").build().eval()
    decoder.load_state_dict(load_file(tmp_path / "ours" / "model.safetensors"), strict=True)
    compare(model, decoder, random_ids(40), hf_prefill=35, our_prefill=33)
