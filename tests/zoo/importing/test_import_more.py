"""Import and export of the Hugging Face families with layers of their own (Cohere 2, Gemma 2 and 3, GPT-NeoX, gpt-oss,
Llama 4, nanochat, Qwen3-MoE) against transformers: tiny models with random weights, of configurations drawn at random,
at lengths past every window, chunk and original context.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_fields import (
    CHUNKED,
    FULL,
    ORIGINAL,
    SLIDING,
    activation,
    head_dim,
    layer_types,
    mixture,
    scaling,
    sizes,
)
from drawn_pairs import assert_as_varied
from float64 import assert_exact, in_float64
from hf_models import (
    TINY,
    by_rules,
    compare,
    draw_weights,
    exported,
    family_of,
    held,
    hf_logits,
    hf_model,
    imported,
    meaning,
    random_ids,
    read_config,
    read_tensors,
    saved,
    spec_of,
)
from paths import ROOT
from safetensors.torch import load_file, save_file

from miniwin.blocks import Decoder
from miniwin.language_model import LanguageModel
from miniwin.specs import ModelSpec, UserError, load_model_spec, parse_spec
from miniwin.zoo.exporting import export_model, find_stock
from miniwin.zoo.importing.converting import import_model
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import CannotSay, fitting

# By number: chosen so that more pairs of values meet than in twenty draws taken blindly, see drawn_pairs.py.
DRAWS = {
    "cohere2": (0, 44, 305, 547, 255, 103, 156, 491, 366, 3, 416, 566, 35),
    "gemma2": (0, 244, 219, 232, 556, 134, 53, 31, 274, 39, 442, 106, 12),
    "gemma3_text": (1, 125, 375, 431, 172, 385, 387, 55, 359, 11, 323),
    "gpt_neox": (0, 18, 4, 74, 43, 10, 69, 55, 241, 164, 41, 42),
    "gpt_oss": (0, 101, 52, 149, 165, 245, 84, 575, 35, 126, 523, 366),
    "llama4_text": (4, 468, 19, 392, 518, 305, 262, 388, 217, 536, 448, 328),
    "nanochat": (3, 100, 164, 370, 41, 102, 146, 55, 244, 337, 173),
    "qwen3_moe": (8, 33, 548, 31, 321, 176, 9, 143, 130, 357, 472, 17, 11),
}
LENGTH = 61
GALLERY = ROOT / "specs" / "models"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------- drawing configurations


def draw_cohere2(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng, "layer_norm_eps") | {"hidden_act": activation(rng), "sliding_window": rng.choice([1, 5, 19])}
    said |= layer_types(rng, said) | {"logit_scale": rng.choice([0.5, 1.0, 2.0])} | rng.choice([{}, head_dim(rng)])
    return said | {"rope_parameters": scaling(rng, 5e4)}


def draw_gemma2(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | head_dim(rng) | {"hidden_activation": rng.choice(["gelu_pytorch_tanh", "gelu", "silu"])}
    said |= layer_types(rng, said) | {"sliding_window": rng.choice([3, 5, 19])}
    said |= {"query_pre_attn_scalar": rng.choice([8, 16, 23]), "attn_logit_softcapping": rng.choice([None, 1.5, 50.0])}
    return said | {"final_logit_softcapping": rng.choice([None, 3.0, 30.0]), "rope_parameters": scaling(rng, 1e4)}


def draw_gemma3(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | head_dim(rng) | {"hidden_activation": rng.choice(["gelu_pytorch_tanh", "gelu", "silu"])}
    said |= rng.choice([layer_types(rng, said), {"sliding_window_pattern": rng.choice([2, 3])}])
    said |= {"sliding_window": rng.choice([3, 5, 19]), "query_pre_attn_scalar": rng.choice([8, 16, 23])}
    as_published = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    full = as_published if rng.random() < 0.3 else scaling(rng, 1e6, nested=True)
    local = {"rope_type": "default", "rope_theta": rng.choice([1e4, 2e3])}
    said |= {"final_logit_softcapping": rng.choice([None, 3.0])}
    return said | {"rope_parameters": {FULL: full, SLIDING: local}}


def draw_gpt_neox(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng, "layer_norm_eps")
    said["num_key_value_heads"] = said["num_attention_heads"]
    said["hidden_size"] = 16 * said["num_attention_heads"]  # so that a quarter of a head is more than one pair
    said["hidden_act"] = rng.choice(["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu2"])
    said["use_parallel_residual"] = rng.random() < 0.5
    share = rng.choice([{}, {"partial_rotary_factor": rng.choice([0.5, 0.75, 1.0])}])
    return said | {"rope_parameters": scaling(rng, 1e4) | share}


def draw_gpt_oss(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | head_dim(rng) | mixture(rng) | {"sliding_window": rng.choice([1, 5, 19])}
    said |= layer_types(rng, said) | {"swiglu_limit": rng.choice([0.8, 7.0]), "swiglu_alpha": rng.choice([1.702, 1.3])}
    yarn = {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0}
    yarn |= {"truncate": False, "original_max_position_embeddings": ORIGINAL}
    return said | rng.choice([{}, {"rope_parameters": yarn}, *[{"rope_parameters": scaling(rng, 1.5e5)}] * 3])


def draw_llama4(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | head_dim(rng) | mixture(rng) | {"hidden_act": activation(rng), "intermediate_size_mlp": 56}
    n = said["num_hidden_layers"]
    said |= {"attention_chunk_size": rng.choice([5, 16]), "use_qk_norm": rng.random() < 0.6}
    turns = [rng.choice([0, 1, 1]) for _ in range(n)]
    said |= rng.choice([{"no_rope_layer_interval": 2}, {"no_rope_layers": turns}])
    if "no_rope_layers" in said and rng.random() < 0.5:  # full layers may rotate
        said["layer_types"] = [FULL if not turn else rng.choice([FULL, CHUNKED]) for turn in turns]
    said |= {"attn_temperature_tuning": rng.random() < 0.7, "floor_scale": rng.choice([8, 20]), "attn_scale": 0.4}
    some = [i for i in range(n) if rng.random() < 0.6]
    said |= rng.choice([{"interleave_moe_layer_step": rng.choice([1, 2])}, {"moe_layers": some}])
    return said | {"rope_parameters": scaling(rng, 5e5)}


def draw_nanochat(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | {"hidden_act": rng.choice(["relu2", "relu2", "gelu", "gelu_new"])}
    said |= {"final_logit_softcapping": rng.choice([None, 2.0, 15.0])} | rng.choice([{}, head_dim(rng)])
    return said | {"rope_parameters": scaling(rng, 1e4)}


def draw_qwen3_moe(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | rng.choice([{}, head_dim(rng)]) | mixture(rng, "num_experts") | {"hidden_act": activation(rng)}
    said |= {"moe_intermediate_size": rng.choice([16, 24]), "norm_topk_prob": rng.random() < 0.5}
    said |= rng.choice([{"decoder_sparse_step": 2}, {"mlp_only_layers": [0]}, {"mlp_only_layers": []}])
    if rng.random() < 0.5:
        said |= {"use_sliding_window": True, "sliding_window": rng.choice([5, 19])}
    return said | {"rope_parameters": scaling(rng, 1e4)}


DRAW: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "cohere2": draw_cohere2,
    "gemma2": draw_gemma2,
    "gemma3_text": draw_gemma3,
    "gpt_neox": draw_gpt_neox,
    "gpt_oss": draw_gpt_oss,
    "llama4_text": draw_llama4,
    "nanochat": draw_nanochat,
    "qwen3_moe": draw_qwen3_moe,
}
FAMILY_NAMES = tuple(DRAW)
every_family = pytest.mark.parametrize("family", FAMILY_NAMES)


def drawn(family: str, draw: int) -> dict[str, Any]:
    return DRAW[family](random.Random(f"{family}, draw {draw}"))


@pytest.mark.parametrize(("family", "draw"), [(family, draw) for family in FAMILY_NAMES for draw in DRAWS[family]])
def test_drawn_configurations(family: str, draw: int, tmp_path: Path) -> None:
    """Prefill and decode of both sides; then our config and weights as a model of transformers, and back as a spec."""
    said, place = drawn(family, draw), DRAWS[family].index(draw)
    model = hf_model(family, seed=draw, **said)
    spec, decoder = imported(model, tmp_path) if place % 3 == 0 else held(model)
    ids = random_ids(LENGTH, seed=draw, batch=1 + place % 2)
    token_by_token = place == 0  # else the last ones; that any number may come at once is in test_contract.py
    first = 1 if token_by_token else LENGTH - 2
    # Their own decoding is looked at in some. A window of one token is where their cache keeps all of them.
    decodes = place % 3 == 0 and said.get("sliding_window") != 1
    ours = 1 if token_by_token else LENGTH - 2
    exact = compare(model, decoder, ids, hf_prefill=first if decodes else None, our_prefill=ours)
    again = exported(FAMILIES[family], spec, decoder)
    assert_exact(hf_logits(again, ids), exact)
    config = json.loads(json.dumps(FAMILIES[family].config(spec)))
    assert meaning(spec_of(config)) == meaning(spec)
    assert meaning(spec_of(json.loads(again.config.to_json_string()))) == meaning(spec)


def test_the_draws_cover_what_they_should() -> None:
    every = {family: [drawn(family, draw) for draw in DRAWS[family]] for family in FAMILY_NAMES}
    for family, chosen in every.items():
        assert_as_varied(chosen, [drawn(family, draw) for draw in range(20)])

    def values(family: str, field: str) -> set[Any]:
        return {json.dumps(said.get(field)) for said in every[family]}

    for family, draws in every.items():
        ropes = [said.get("rope_parameters", {}) for said in draws]
        assert {rope.get(FULL, rope).get("rope_type") for rope in ropes} >= {"default", "linear", "yarn", "llama3"}
        for field in ("tie_word_embeddings", "attention_bias", "num_attention_heads", "num_key_value_heads"):
            assert len(values(family, field)) > 1, (family, field)
    assert values("gemma2", "attn_logit_softcapping") == {"null", "1.5", "50.0"}
    assert values("gpt_neox", "use_parallel_residual") == values("qwen3_moe", "norm_topk_prob") == {"true", "false"}
    assert len(values("gpt_neox", "hidden_act")) == 5
    assert values("llama4_text", "attn_temperature_tuning") == values("llama4_text", "use_qk_norm") == {"true", "false"}
    for family, fields in {
        "cohere2": ("layer_types", "logit_scale", "head_dim"),
        "gemma3_text": ("layer_types", "sliding_window_pattern", "query_pre_attn_scalar"),
        "gpt_oss": ("rope_parameters", "swiglu_limit", "num_experts_per_tok"),
        "llama4_text": ("moe_layers", "interleave_moe_layer_step", "no_rope_layers", "layer_types", "floor_scale"),
        "qwen3_moe": ("decoder_sparse_step", "mlp_only_layers", "sliding_window"),
    }.items():
        assert all(len(values(family, field)) > 1 for field in fields), family


# ----------------------------------------------------------------------------------------------------- through files


def brought(source: Path, to: Path) -> tuple[ModelSpec, Decoder]:
    """What `import_model` makes of a folder."""
    import_model(source, to, name="brought")
    spec = load_model_spec(to / "model.yaml")
    decoder = spec.build().eval()
    decoder.load_state_dict(load_file(to / "model.safetensors"), strict=True)
    return spec, decoder


def tiny(family: str, seed: int = 7) -> Any:
    """A model of no drawn configuration: RoPE as the family has it by default."""
    said: dict[str, Any] = {"rope_parameters": None} if family == "gpt_oss" else {}
    said |= {} if family == "gpt_neox" else {"head_dim": 8}
    return hf_model(family, seed, **(drawn(family, 3) | {"tie_word_embeddings": False} | said))


@every_family
def test_a_folder_comes_in_and_goes_out(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny(family)
    spec, decoder = brought(saved(model, tmp_path / "source"), tmp_path / "ours")
    ids = random_ids(50)
    exact = compare(model, decoder, ids, hf_prefill=45, our_prefill=44)
    made = export_model(LanguageModel(decoder, spec, None), tmp_path / "out", "stock", family)
    assert made.architecture == family
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    assert type(again) is type(model)
    assert_exact(hf_logits(in_float64(again), ids), exact)
    with torch.no_grad():
        assert torch.equal(brought(tmp_path / "out", tmp_path / "back")[1](ids), decoder(ids))


def test_stacked_experts_of_qwen3_moe(tmp_path: Path) -> None:
    """transformers 5 can also write the experts as it holds them."""
    model = tiny("qwen3_moe")
    model.save_pretrained(tmp_path / "source", save_original_format=False)
    names = set(read_tensors(tmp_path / "source"))
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in names)
    assert not any("experts.0." in name for name in names)
    compare(model, brought(tmp_path / "source", tmp_path / "ours")[1], random_ids(40), hf_prefill=35, our_prefill=33)


@pytest.mark.parametrize("head", ["embed_out.weight", "lm_head.weight"])
def test_both_names_of_the_head_of_gpt_neox(head: str, tmp_path: Path) -> None:
    model = tiny("gpt_neox")
    tensors = read_tensors(saved(model, tmp_path / "source"))
    weight = tensors.pop("embed_out.weight" if "embed_out.weight" in tensors else "lm_head.weight")
    # Older checkpoints hold tables, too.
    tensors |= {head: weight, "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 9, 9).tril()}
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / "source" / "model.safetensors")
    compare(model, brought(tmp_path / "source", tmp_path / "ours")[1], random_ids(40), hf_prefill=35, our_prefill=33)


VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
LLAMA_VISION = {"projector_input_dim": 16, "projector_output_dim": 16, "vision_output_dim": 16}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["gemma3", "llama4"])
def test_the_language_model_of_a_multimodal_one(kind: str, tied: bool, tmp_path: Path) -> None:
    import transformers

    said = {**TINY, **drawn(f"{kind}_text", 3), "tie_word_embeddings": tied} | {"final_logit_softcapping": None}
    if kind == "gemma3":
        vision, more, of = {**VISION, "intermediate_size": 16}, {"mm_tokens_per_image": 4}, transformers.Gemma3Config
        make = transformers.Gemma3ForConditionalGeneration
    else:
        vision, more, of = {**VISION, **LLAMA_VISION, "intermediate_size": 64}, {}, transformers.Llama4Config
        make = transformers.Llama4ForConditionalGeneration
    config = of(text_config=said, vision_config=vision, tie_word_embeddings=tied, **more)
    config._attn_implementation = "eager"
    model = make(config).eval()
    draw_weights(model, 5)
    made = import_model(saved(model, tmp_path / "source"), tmp_path / "ours", name="brought")
    assert any("tensors of parts other than the language model are left out" in note for note in made.notes)
    decoder = made.spec.build().eval()
    decoder.load_state_dict(load_file(tmp_path / "ours" / "model.safetensors"), strict=True)
    ids = random_ids(LENGTH)
    compare(model, decoder, ids, hf_prefill=None, our_prefill=LENGTH - 7)
    assert made.spec.tie_word_embeddings == tied


# ----------------------------------------------------------------------------------------------------- forms of config

BARE = {key: value for key, value in TINY.items() if not key.endswith("token_id")} | {"num_hidden_layers": 4}
GEMMA = BARE | {"head_dim": 8, "sliding_window": 5}
OSS = BARE | {"head_dim": 8, "num_local_experts": 4}
YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
LINEAR = {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("family", "older", "newer"),
    [
        (
            "cohere2",  # as published
            BARE
            | {
                "sliding_window": 5,
                "sliding_window_pattern": 4,
                "layer_switch": 4,
                "rope_theta": 50000,
                "rotary_pct": 1.0,
            }
            | {"order_of_interleaved_layers": "local_attn_first", "position_embedding_type": "rope_gptj"}
            | {"use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block": True}
            | {
                "use_parallel_embedding": False,
                "use_qk_norm": False,
                "rope_scaling": None,
                "cache_implementation": "hybrid",
            },
            BARE | {"sliding_window": 5, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
        ),
        (
            "gemma2",
            GEMMA | {"hidden_act": "gelu_pytorch_tanh", "sliding_window_size": 5, "rope_theta": 10000.0},
            GEMMA | {"layer_types": [SLIDING, FULL, SLIDING, FULL]},
        ),
        (
            "gemma3_text",
            GEMMA
            | {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": LINEAR, "sliding_window_pattern": 2},
            GEMMA
            | {"layer_types": [SLIDING, FULL, SLIDING, FULL]}
            | {"rope_parameters": {FULL: LINEAR | {"rope_theta": 5e5}, SLIDING: {"rope_theta": 2e4}}},
        ),
        (
            "gpt_neox",
            BARE | {"num_key_value_heads": 4, "rotary_pct": 0.5, "rotary_emb_base": 5000, "hidden_act": "gelu_fast"},
            BARE
            | {"num_key_value_heads": None, "hidden_act": "gelu_new"}
            | {"rope_parameters": {"rope_theta": 5000.0, "partial_rotary_factor": 0.5}},
        ),
        (
            "gpt_oss",
            OSS
            | {"rope_theta": 150000, "experts_per_token": 4, "initial_context_length": 4096}
            | {"rope_scaling": YARN | {"original_max_position_embeddings": 4096}},
            OSS,
        ),
        (
            "llama4_text",
            BARE | {"head_dim": 8, "no_rope_layers": [], "rope_theta": 5e5, "rope_scaling": None, "moe_layers": [1, 3]},
            BARE
            | {"head_dim": 8, "no_rope_layers": [1, 1, 1, 0], "interleave_moe_layer_step": 2}
            | {"layer_types": [CHUNKED] * 3 + [FULL]},
        ),
        (
            "qwen3_moe",
            BARE | {"num_experts": 8, "rope_theta": 1e6, "max_window_layers": 28, "sliding_window": 4096},
            BARE
            | {"num_local_experts": 8, "mlp_only_layers": [], "sliding_window": None}
            | {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
        ),
    ],
)
def test_forms_that_mean_the_same(family: str, older: dict[str, Any], newer: dict[str, Any]) -> None:
    """And transformers reads the older one as we do."""
    from transformers import AutoConfig

    spec = spec_of({"model_type": family, **older})
    assert meaning(spec) == meaning(spec_of({"model_type": family, **newer}))
    known = {
        key: value for key, value in older.items() if key not in ("layer_switch", "hidden_act") or family != "cohere2"
    }
    theirs = AutoConfig.for_model(family, **known)
    assert meaning(spec_of(json.loads(theirs.to_json_string()))) == meaning(spec)


def test_the_balance_loss_is_counted_our_way() -> None:
    said = {"model_type": "gpt_oss", **OSS, "num_experts_per_tok": 3, "router_aux_loss_coef": 0.9}
    (mlp,) = {layer.mlp for layer in spec_of(said).layer_specs}
    assert mlp.balance_loss == pytest.approx(2.7)
    assert FAMILIES["gpt_oss"].config(spec_of(said))["router_aux_loss_coef"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("cohere2", {"hidden_act": "relu"}, "hidden_act: got 'relu'; expected one of silu"),
        ("cohere2", {"sliding_window": None}, "sliding_window: got null; sliding layers need one"),
        ("cohere2", {"use_qk_norm": True}, "use_qk_norm: got true; transformers' cohere2 models differ from this"),
        ("cohere2", {"rotary_pct": 0.5}, "rotary_pct: got 0.5; transformers' cohere2 models differ from this"),
        ("cohere2", {"layer_switch": 3}, "layer_switch: got 3; layer_types, or sliding_window_pattern, says otherwise"),
        ("cohere2", {"logit_scale": 0}, "logit_scale: got 0; expected a positive number"),
        (
            "cohere2",
            {"use_embedding_sharing": False},
            "use_embedding_sharing: got false; tie_word_embeddings says",
        ),
        (
            "cohere2",
            {"partial_rotary_factor": 0.5},
            "partial_rotary_factor: got 0.5; a cohere2 model rotates",
        ),
        ("cohere2", {"num_experts": 8}, "num_experts: got 8; cohere2 models have no such field"),
        (
            "gemma2",
            {"hidden_act": "gelu"},
            "hidden_act: got 'gelu'; hidden_activation, which counts",
        ),
        (
            "gemma2",
            {"use_bidirectional_attention": True},
            "use_bidirectional_attention: got true; this attention",
        ),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar: got 0; expected a positive number"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "attn_logit_softcapping: got -1.0; expected a positive number"),
        ("gemma2", {"sliding_window_size": 7}, "sliding_window_size: got 7; sliding_window, which counts, is 4096"),
        (
            "gemma3_text",
            {"attn_logit_softcapping": 50.0},
            "attn_logit_softcapping: got 50.0; transformers has",
        ),
        (
            "gemma3_text",
            {"rope_parameters": {"rope_type": "linear"}},
            "rope_parameters: got .*expected them by",
        ),
        (
            "gemma3_text",
            {"layer_types": [CHUNKED] * 4},
            "layer_types: got 'chunked_attention'; expected full",
        ),
        (
            "gpt_neox",
            {"hidden_act": "quick_gelu", "num_key_value_heads": 4},
            "hidden_act: got 'quick_gelu'; expected",
        ),
        (
            "gpt_neox",
            {"num_key_value_heads": 4, "rope_theta": 777},
            "rope_theta: got 777; transformers looks at rotary",
        ),
        (
            "gpt_neox",
            {"num_key_value_heads": 4, "rotary_pct": 0.5, "partial_rotary_factor": 0.25},
            "partial_rotary_factor: got 0.25; transformers looks at rotary_emb_base and rotary_pct here, and takes 0.5",
        ),
        ("gpt_neox", {"num_key_value_heads": 2}, "num_key_value_heads: got 2; a gpt_neox model has as many"),
        ("gpt_neox", {"head_dim": 4, "num_key_value_heads": 4}, "num_attention_heads: got 4; hidden_size must be"),
        (
            "gpt_oss",
            {"quantization_config": {"quant_method": "mxfp4"}},
            "quantization_config: .*dequantize=True",
        ),
        ("gpt_oss", {"hidden_act": "gelu"}, "hidden_act: got 'gelu'; gpt-oss experts have a clamped SwiGLU"),
        (
            "gpt_oss",
            {"experts_per_token": 2},
            "experts_per_token: got 2; num_experts_per_tok, which",
        ),
        (
            "gpt_oss",
            {"num_experts_per_tok": 200},
            "num_experts_per_tok: got 200; expected at most",
        ),
        ("gpt_oss", {"router_aux_loss_coef": -1}, "router_aux_loss_coef: got -1; expected at least 0"),
        ("llama4_text", {"attention_chunk_size": None}, "attention_chunk_size: got null; chunked layers need one"),
        (
            "llama4_text",
            {"no_rope_layers": [1, 0]},
            "no_rope_layers: got .1, 0.; expected 1 .rotates.",
        ),
        ("llama4_text", {"layer_types": [CHUNKED] * 4}, "layer_types: got .*temperature tuning counts all tokens"),
        ("llama4_text", {"moe_layers": 2}, "moe_layers: got 2; expected a list of layers' numbers"),
        ("llama4_text", {"attn_temperature_tuning": 4}, "attn_temperature_tuning: got 4; expected true or false"),
        ("llama4", {}, "text_config: expected the language model's fields in a llama4 config"),
        (
            "gemma3",
            {"text_config": {"tie_word_embeddings": False}, "tie_word_embeddings": True},
            "tie_word_embeddings: got",
        ),
        (
            "gemma3",
            {"text_config": {"final_logit_softcapping": 9.0}},
            "final_logit_softcapping: got 9.0",
        ),
        ("nanochat", {"hidden_act": "silu"}, "hidden_act: got 'silu'; expected one of gelu"),
        ("nanochat", {"sliding_window": 64}, "sliding_window: got 64; nanochat models have no such field"),
        (
            "qwen3_moe",
            {"use_sliding_window": True, "max_window_layers": 2},
            "max_window_layers: got 2",
        ),
        (
            "qwen3_moe",
            {"num_experts": 8, "num_local_experts": 4},
            "num_experts: got 8; num_local",
        ),
        (
            "qwen3_moe",
            {"num_experts": 8, "decoder_sparse_step": 0},
            "decoder_sparse_step: got 0; expected",
        ),
        ("qwen3_moe", {"num_experts": 8, "mlp_only_layers": [True]}, "mlp_only_layers: got .True.; expected a list of"),
        ("qwen3_moe", {}, "num_experts: missing; expected a positive whole number"),
    ],
)
def test_what_is_refused(family: str, fields: dict[str, Any], message: str) -> None:
    config = {"model_type": family, **BARE, **fields}
    with pytest.raises(UserError, match=f"^{message}"):
        spec_of(config)


# ------------------------------------------------------------------------------------------------- gallery, and export

TINY_TWINS = {
    "command-r7b-tiny": "cohere2",
    "gemma-2-2b-tiny": "gemma2",
    "gemma-3-1b-tiny": "gemma3_text",
    "gemma-3-4b-tiny": "gemma3_text",
    "gpt-neox-20b-tiny": "gpt_neox",
    "gpt-oss-20b-tiny": "gpt_oss",
    "llama-4-scout-tiny": "llama4_text",
}


@pytest.mark.parametrize(("name", "architecture"), TINY_TWINS.items())
def test_the_gallery_is_said_by_its_own_architecture(name: str, architecture: str) -> None:
    stock, refusals = find_stock(load_model_spec(GALLERY / f"{name}.yaml"))
    assert stock is not None, refusals
    assert stock.model_type == architecture
    assert spec_of(stock.config).hash == load_model_spec(GALLERY / f"{name}.yaml").hash


def varied(family: str, change: Callable[[dict[str, Any]], None]) -> ModelSpec:
    """The spec of a drawn configuration, with something changed."""
    data = spec_of(read_like(family)).model_dump(mode="json")
    change(data)
    spec: ModelSpec = parse_spec(data, "model")
    return spec


def read_like(family: str) -> dict[str, Any]:
    return dict(json.loads(tiny(family).config.to_json_string()))


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a field, in every block where the path begins with `blocks`."""

    def change(data: dict[str, Any]) -> None:
        first, *rest = path.split(".")
        targets = list(data["blocks"].values()) if first == "blocks" else [data]
        for target in targets:
            for key in (rest if first == "blocks" else [first, *rest])[:-1]:
                target = target[key]
            target[path.rsplit(".", 1)[-1]] = value

    return change


@pytest.mark.parametrize(
    ("family", "path", "value", "named"),
    [
        ("cohere2", "embed_scale", 2.0, "embed_scale: got 2.0"),
        ("cohere2", "blocks.residual", "pre", "residual: got pre"),
        (
            "cohere2",
            "blocks.norm",
            {"type": "rmsnorm"},
            "norm: got type rmsnorm, gain plain; a cohere2",
        ),
        ("gemma2", "embed_scale", 1.0, "embed_scale: got 1.0"),
        (
            "gemma2",
            "blocks.attention.score_scale",
            0.3,
            "attention.score_scale: got 0.3; this config has 1 / sqrt",
        ),
        ("gemma3_text", "blocks.attention.softcap", 5.0, "attention.softcap: got 5.0"),
        ("gemma3_text", "blocks.attention.qk_norm", None, "attention.qk_norm: got none"),
        ("gpt_neox", "blocks.attention.window", 5, "attention.window: got 5"),
        ("gpt_neox", "blocks.mlp", {"type": "swiglu", "intermediate_size": 8, "bias": True}, "mlp.type: got swiglu"),
        ("gpt_neox", "norm.eps", 0.5, "norm.eps: norms differ"),
        ("gpt_oss", "blocks.attention.sinks", False, "attention.sinks: got false"),
        ("gpt_oss", "blocks.mlp.router", {"type": "topk-sigmoid"}, "mlp.router.type: got topk-sigmoid"),
        ("llama4_text", "blocks.mlp", {"type": "swiglu", "intermediate_size": 8, "bias": True}, "mlp.bias: got true"),
        ("llama4_text", "logit_softcap", 5.0, "logit_softcap: got 5.0"),
        ("nanochat", "embed_norm", None, "embed_norm: got none"),
        ("nanochat", "blocks.attention.qk_norm_order", "before", "attention.qk_norm_order: got before"),
        ("qwen3_moe", "blocks.mlp", {"type": "swiglu", "intermediate_size": 8}, "mlp.type: no layer has a mixture"),
        ("qwen3_moe", "blocks.attention.qk_norm_scope", "all", "attention.qk_norm_scope: got all"),
    ],
)
def test_what_a_config_cannot_say(family: str, path: str, value: Any, named: str) -> None:
    with pytest.raises(CannotSay, match=f"^{named}"):
        FAMILIES[family].config(varied(family, put(path, value)))


def test_rules_are_inverses_of_themselves(tmp_path: Path) -> None:
    """Every form: read, written and read again, each tensor is what it was, and of the same shape as in the file."""
    for family in FAMILY_NAMES:
        tensors = read_tensors(saved(tiny(family), tmp_path / family))
        config = read_config(tmp_path / family)
        for rule in fitting(family_of(config).rules(spec_of(config)), tensors):
            theirs = [tensors[name] for name in rule.theirs]
            back = rule.write(rule.read(theirs))
            assert all(torch.equal(a, b) for a, b in zip(back, theirs, strict=True)), rule.theirs
        assert len(by_rules(fitting(family_of(config).rules(spec_of(config)), tensors), tensors)) > len(FAMILY_NAMES)
