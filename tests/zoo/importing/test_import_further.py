"""Import and export of further Hugging Face families against transformers (Gemma, GPT-2, Granite, Mixtral, OLMo 2,
Qwen2, StarCoder 2): tiny models with random weights, of configurations drawn at random, at lengths past every window
and original context.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_fields import FULL, SLIDING, activation, head_dim, layer_types, mixture, scaling, sizes
from drawn_pairs import values
from float64 import assert_exact, in_float64
from hf_models import (
    TINY,
    compare,
    exported,
    held,
    hf_logits,
    hf_model,
    meaning,
    random_ids,
    read_tensors,
    saved,
    spec_of,
)
from paths import ROOT
from safetensors.torch import load_file, save_file

from miniwin.language_model import LanguageModel
from miniwin.specs import ModelSpec, UserError, load_model_spec
from miniwin.zoo.exporting import export_model, find_stock
from miniwin.zoo.importing.converting import import_model
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import HARMLESS, CannotSay, fitting

# By number: each is the one of the first 400 that adds most values, then most pairs of them, see drawn_pairs.py.
DRAWS: dict[str, tuple[int, ...]] = {
    "gemma": (0, 2, 83, 81),
    "gpt2": (0, 1, 6, 9),
    "granite": (4, 76, 14, 311),
    "mixtral": (0, 261, 20, 28),
    "olmo2": (0, 31, 165, 63),
    "qwen2": (3, 71, 243, 328, 182, 143),
    "starcoder2": (0, 122, 22, 289),
}
LENGTH = 43
GPT2_SIZES = ("n_layer", "n_embd", "n_head", "n_positions", "layer_norm_epsilon")
GPT2_IGNORES = ("num_key_value_heads", "intermediate_size")
GALLERY = ROOT / "specs" / "models"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------- drawing configurations


def without_bias_field(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name != "attention_bias"}


def draw_gemma(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | head_dim(rng) | {"hidden_act": rng.choice(["gelu", "gelu_pytorch_tanh", "silu"])}
    return said | {"rope_parameters": scaling(rng, 1e4)}


def draw_gpt2(rng: random.Random) -> dict[str, Any]:
    heads = rng.choice([2, 4, 6])
    return {
        "n_layer": rng.choice([2, 3, 4]),
        "n_embd": heads * 8,
        "n_head": heads,
        "n_inner": rng.choice([None, 24]),
        "n_positions": rng.choice([LENGTH, 64]),
        "activation_function": rng.choice(["gelu_new", "gelu", "relu2"]),
        "layer_norm_epsilon": rng.choice([1e-6, 1e-5, 1e-3]),
        "tie_word_embeddings": rng.random() < 0.5,
        "scale_attn_weights": rng.random() < 0.6,
        "scale_attn_by_inverse_layer_idx": rng.random() < 0.5,
    }


def draw_granite(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | rng.choice([{}, head_dim(rng)]) | {"hidden_act": activation(rng)}
    said |= {"mlp_bias": rng.random() < 0.5, "embedding_multiplier": rng.choice([1.0, 6.0])}
    said |= rng.choice([{}, {"attention_multiplier": rng.choice([0.125, 0.3])}])
    said |= {"residual_multiplier": rng.choice([1.0, 0.22]), "logits_scaling": rng.choice([1.0, 1.3])}
    return said | {"rope_parameters": scaling(rng, 1e4)}


def draw_mixtral(rng: random.Random) -> dict[str, Any]:
    said = without_bias_field(sizes(rng)) | rng.choice([{}, head_dim(rng)]) | mixture(rng)
    said |= {"hidden_act": activation(rng), "sliding_window": rng.choice([None, 5, 19])}
    return said | {"rope_parameters": scaling(rng, 1e6)}


def draw_olmo2(rng: random.Random) -> dict[str, Any]:
    said = sizes(rng) | rng.choice([{}, head_dim(rng)]) | {"hidden_act": activation(rng)}
    return said | {"rope_parameters": scaling(rng, 5e5)}


def draw_qwen2(rng: random.Random) -> dict[str, Any]:
    said = without_bias_field(sizes(rng)) | rng.choice([{}, head_dim(rng)]) | {"hidden_act": activation(rng)}
    if rng.random() < 0.6:
        said |= {"use_sliding_window": True, "sliding_window": rng.choice([5, 19])}
        first = {"max_window_layers": rng.randrange(said["num_hidden_layers"] + 1)}
        said |= rng.choice([first, layer_types(rng, said)])
    return said | {"rope_parameters": scaling(rng, 1e6)}


def draw_starcoder2(rng: random.Random) -> dict[str, Any]:
    said = without_bias_field(sizes(rng, "norm_epsilon")) | rng.choice([{}, head_dim(rng)])
    said |= {"use_bias": rng.random() < 0.6, "hidden_act": rng.choice(["gelu", "gelu_pytorch_tanh", "relu2"])}
    return said | {"sliding_window": rng.choice([None, 5, 19]), "rope_parameters": scaling(rng, 1e6)}


DRAW: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "gemma": draw_gemma,
    "gpt2": draw_gpt2,
    "granite": draw_granite,
    "mixtral": draw_mixtral,
    "olmo2": draw_olmo2,
    "qwen2": draw_qwen2,
    "starcoder2": draw_starcoder2,
}


def drawn(family: str, draw: int) -> dict[str, Any]:
    return DRAW[family](random.Random(f"{family}, draw {draw}"))


@pytest.mark.parametrize(("family", "place"), [(family, i) for family in DRAWS for i in range(len(DRAWS[family]))])
def test_drawn_configurations(family: str, place: int, tmp_path: Path) -> None:
    """Prefill and decode of both sides; then our config and weights as a model of transformers, and back as a spec.

    The first draw of a family goes through folders, in and out.
    """
    draw = DRAWS[family][place]
    model = hf_model(family, seed=draw, **drawn(family, draw))
    ids = random_ids(LENGTH, seed=draw, batch=1 + place % 2)
    if place == 0:
        through_folders(family, model, ids, tmp_path)
        return
    spec, decoder = held(model)
    exact = compare(model, decoder, ids, hf_prefill=LENGTH - 2 if place == 1 else None, our_prefill=LENGTH - 2)
    again = exported(FAMILIES[family], spec, decoder)
    assert_exact(hf_logits(again, ids), exact)
    config = json.loads(json.dumps(FAMILIES[family].config(spec)))
    assert meaning(spec_of(config)) == meaning(spec)
    assert meaning(spec_of(json.loads(again.config.to_json_string()))) == meaning(spec)


def through_folders(family: str, model: Any, ids: torch.Tensor, folder: Path) -> None:
    """In, token by token, out, into transformers, and in again."""
    from transformers import AutoModelForCausalLM

    ours = import_model(saved(model, folder / "source"), folder / "ours", name="brought")
    decoder = ours.spec.build().eval()
    decoder.load_state_dict(load_file(folder / "ours" / "model.safetensors"), strict=True)
    exact = compare(model, decoder, ids, hf_prefill=LENGTH - 2, our_prefill=1)
    made = export_model(LanguageModel(decoder, ours.spec, None), folder / "out", "stock", family)
    assert made.architecture == family
    again = AutoModelForCausalLM.from_pretrained(folder / "out", attn_implementation="eager").eval()
    assert type(again) is type(model)
    assert_exact(hf_logits(in_float64(again), ids), exact)
    back = import_model(folder / "out", folder / "back", name="brought")
    assert back.spec.hash == ours.spec.hash
    theirs, mine = (load_file(folder / at / "model.safetensors") for at in ("back", "ours"))
    assert theirs.keys() == mine.keys() and all(torch.equal(theirs[name], mine[name]) for name in mine)
    tensors = read_tensors(folder / "source")
    for rule in fitting(FAMILIES[family].rules(ours.spec), tensors):
        shapes = [tensors[name].shape for name in rule.theirs]
        assert [tensor.shape for tensor in rule.write(rule.read([tensors[name] for name in rule.theirs]))] == shapes


def decided(draws: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The values in these draws. The finer fields of scalings are tested with other families, by the same code."""
    one = {"num_key_value_heads": 1, "num_attention_heads": 1}  # of a family without the fields
    return {
        item for said in draws for item in values(one | said).items() if item[0] not in ("rope fields", *GPT2_SIZES)
    }


def test_the_draws_cover_what_they_should() -> None:
    for family, draws in DRAWS.items():
        every, many = ([drawn(family, draw) for draw in some] for some in (draws, range(100)))
        assert decided(every) >= decided(many), family
        sizes = ("n_layer", "n_embd", "n_positions") if family == "gpt2" else ("num_hidden_layers", "hidden_size")
        assert all(len({said[field] for said in every}) > 1 for field in sizes), family


# ------------------------------------------------------------------------------------------------------ forms of files


def test_stacked_experts_of_mixtral(tmp_path: Path) -> None:
    """Published files hold each expert by itself; transformers 5 can also write the experts as it holds them."""
    model = hf_model("mixtral", 3, **drawn("mixtral", DRAWS["mixtral"][1]))
    names = set(read_tensors(saved(model, tmp_path / "separate")))
    assert any(name.endswith("block_sparse_moe.experts.1.w3.weight") for name in names)
    model.save_pretrained(tmp_path / "stacked", save_original_format=False)
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in read_tensors(tmp_path / "stacked"))
    for kind in ("separate", "stacked"):
        import_model(tmp_path / kind, tmp_path / f"ours-{kind}", name="brought")
    one, other = (load_file(tmp_path / f"ours-{kind}" / "model.safetensors") for kind in ("separate", "stacked"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_first_checkpoints_of_gpt2(tmp_path: Path) -> None:
    """Their names lack a prefix, and beside the weights they hold causal masks."""
    model = hf_model("gpt2", 3, **drawn("gpt2", DRAWS["gpt2"][1]))
    tensors = read_tensors(saved(model, tmp_path / "later"))
    first = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    first |= {"h.0.attn.bias": torch.ones(1, 1, 9, 9).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    (tmp_path / "first").mkdir()
    save_file(first, tmp_path / "first" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "first" / "config.json").write_bytes((tmp_path / "later" / "config.json").read_bytes())
    for kind in ("first", "later"):
        import_model(tmp_path / kind, tmp_path / f"ours-{kind}", name="brought")
    one, other = (load_file(tmp_path / f"ours-{kind}" / "model.safetensors") for kind in ("first", "later"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_gpt2_with_more_layers_than_a_kind_has_letters() -> None:
    said = {"model_type": "gpt2", "vocab_size": 61, "n_embd": 8, "n_head": 2, "scale_attn_by_inverse_layer_idx": True}
    spec = spec_of({**said, "n_layer": 24})
    assert len(spec.blocks) == 24 and spec.layout.startswith("GHIJKLMNOPQRABCDEFST")
    assert FAMILIES["gpt2"].config(spec)["scale_attn_by_inverse_layer_idx"] is True
    many = spec_of({**said, "n_layer": 36})  # as the large one has
    assert len(many.blocks) == 36 and many.layout.endswith("YZabcdefghij")
    with pytest.raises(UserError, match="the layers are of more than 52 kinds"):
        spec_of({**said, "n_layer": 53})


def test_logits_are_divided_as_they_were() -> None:
    """`logits_scaling` divides and `logit_scale` multiplies: each number comes back to the bit, if it can."""
    for divisor in (13.0, 16, 0.3, 1.7, 1e-3):
        spec = spec_of({"model_type": "granite", **BARE, "logits_scaling": divisor})
        again = spec_of({"model_type": "granite", **FAMILIES["granite"].config(spec)})
        assert spec.logit_scale == 1 / divisor and again.logit_scale == spec.logit_scale
    lost = next(scale for scale in (0.75 + i * 2**-52 for i in range(99)) if not any_divides(scale))
    with pytest.raises(
        CannotSay, match=r"logit_scale: got 0\.75\d*; a granite model divides its logits, and no number"
    ):
        FAMILIES["granite"].config(twin("granite-3.1-8b-tiny").model_copy(update={"logit_scale": lost}))


def any_divides(scale: float) -> bool:
    near = 1 / scale
    return any(1 / (near + ulps * 2**-52) == scale for ulps in range(-3, 4))


BARE = {key: value for key, value in TINY.items() if not key.endswith("token_id")} | {"num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("family", "older", "newer"),
    [
        (
            "gemma",  # as published
            BARE
            | {"head_dim": 8, "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 10000.0}
            | {"rope_scaling": None},
            BARE | {"head_dim": 8},
        ),
        (
            "gpt2",  # as published
            {"vocab_size": 61, "n_layer": 4, "n_head": 4, "n_embd": 32, "n_ctx": 64, "n_positions": 64}
            | {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "attn_pdrop": 0.1, "resid_pdrop": 0.1}
            | {"summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True}
            | {"summary_type": "cls_index", "summary_use_proj": True, "reorder_and_upcast_attn": True},
            {"vocab_size": 61, "num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 32}
            | {"max_position_embeddings": 64, "n_inner": 128},
        ),
        (
            "granite",
            BARE | {"rope_theta": 10000000.0, "attention_multiplier": 8**-0.5, "logits_scaling": 1},
            BARE
            | {"embedding_multiplier": 1, "residual_multiplier": 1.0, "attention_multiplier": 0.3535533905932738}
            | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e7}},
        ),
        (
            "mixtral",
            BARE | {"rope_theta": 1000000.0, "sliding_window": None, "output_router_logits": False},
            BARE | {"num_local_experts": 8, "num_experts_per_tok": 2},
        ),
        (
            "olmo2",
            BARE | {"rope_theta": 500000, "rope_scaling": None},
            BARE | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        ),
        (
            "qwen2",
            BARE | {"rope_theta": 1000000.0, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
            BARE
            | {"use_sliding_window": True, "sliding_window": 9, "layer_types": [FULL, FULL, SLIDING, SLIDING]}
            | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        ),
        (
            "starcoder2",
            BARE
            | {"rope_theta": 999999.5, "sliding_window": 9, "norm_type": "layer_norm", "mlp_type": "default"}
            | {"attention_dropout": 0.1, "residual_dropout": 0.1, "embedding_dropout": 0.1},
            BARE | {"sliding_window": 9, "rope_parameters": {"rope_type": "default", "rope_theta": 999999.5}},
        ),
    ],
)
def test_forms_that_mean_the_same(family: str, older: dict[str, Any], newer: dict[str, Any]) -> None:
    """And transformers reads the older one as we do."""
    from transformers import AutoConfig

    spec = spec_of({"model_type": family, **older})
    assert meaning(spec) == meaning(spec_of({"model_type": family, **newer}))
    theirs = AutoConfig.for_model(family, **older)
    assert meaning(spec_of(json.loads(theirs.to_json_string()))) == meaning(spec)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("gemma", {"hidden_activation": "silu"}, "hidden_activation: got 'silu'; hidden_act, which counts, is gelu_py"),
        ("gemma", {"hidden_act": "relu"}, "hidden_act: got 'relu'; expected one of silu"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention: got true; this attention"),
        ("gemma", {"query_pre_attn_scalar": 8}, "query_pre_attn_scalar: got 8; gemma models have no such field"),
        ("gpt2", {"n_embd": 64}, "hidden_size: got 32; n_embd, which means the same, is 64; remove one of them"),
        ("gpt2", {"n_ctx": 9}, "n_ctx: got 9; n_positions, which counts, is 512; remove it"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention: got true; there is no other text to attend to"),
        ("gpt2", {"n_head": 3, "num_attention_heads": 3}, "n_head: got 3; it must divide n_embd 32"),
        ("gpt2", {"activation_function": "silu"}, "activation_function: got 'silu'; expected one of gelu"),
        ("gpt2", {"scale_attn_weights": 0}, "scale_attn_weights: got 0; expected true or false"),
        ("gpt2", {"rotary_dim": 8}, "rotary_dim: got 8; gpt2 models have no such field"),
        ("granite", {"embedding_multiplier": 0}, "embedding_multiplier: got 0; expected a positive number"),
        ("granite", {"attention_multiplier": -0.1}, "attention_multiplier: got -0.1; expected a positive number"),
        ("granite", {"residual_multiplier": "a"}, "residual_multiplier: got 'a'; expected a number"),
        ("granite", {"logits_scaling": 0}, "logits_scaling: got 0; expected a positive number"),
        ("granite", {"sliding_window": 9}, "sliding_window: got 9; granite models have no such field"),
        ("granite", {"num_local_experts": 4}, "num_local_experts: got 4; granite models have no such field"),
        ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok: got 9; expected at most num_local_experts 8"),
        ("mixtral", {"num_experts": 4}, "num_experts: got 4; num_local_experts says otherwise"),
        ("mixtral", {"layer_types": [SLIDING] * 4}, "layer_types: got 'sliding_attention'; expected full_attention"),
        ("mixtral", {"norm_topk_prob": True}, "norm_topk_prob: got true; mixtral models have no such field"),
        ("mixtral", {"attention_bias": True}, "attention_bias: got true; mixtral models have no such field"),
        ("olmo2", {"sliding_window": 9}, "sliding_window: got 9; olmo2 models have no such field"),
        ("olmo2", {"layer_types": [SLIDING] * 4}, "layer_types: got 'sliding_attention'; expected full_attention"),
        ("qwen2", {"layer_types": [FULL, SLIDING] * 2}, "layer_types: got .*sliding layers need sliding_window, and"),
        ("qwen2", {"attention_bias": True}, "attention_bias: got true; qwen2 models have no such field"),
        ("qwen2", {"use_mrope": True}, "use_mrope: got true; qwen2 models have no such field"),
        ("starcoder2", {"norm_type": "rms_norm"}, "norm_type: got 'rms_norm'; transformers' starcoder2 models have L"),
        ("starcoder2", {"mlp_type": "gated"}, "mlp_type: got 'gated'; transformers' starcoder2 models have a plain"),
        ("starcoder2", {"hidden_act": "silu"}, "hidden_act: got 'silu'; expected one of gelu"),
        ("starcoder2", {"use_bias": 1}, "use_bias: got 1; expected true or false"),
    ],
)
def test_what_is_refused(family: str, fields: dict[str, Any], message: str) -> None:
    bare = {name: value for name, value in BARE.items() if family != "gpt2" or name not in GPT2_IGNORES}
    with pytest.raises(UserError, match=f"^{message}"):
        spec_of({"model_type": family, **bare, **fields})


# Fields of transformers' classes that change no logits of this config: training, other tasks, how float16 is rounded.
CHANGES_NOTHING = {
    "gpt2": {"attn_pdrop", "reorder_and_upcast_attn"},
    "mixtral": {"router_jitter_noise"},
    "qwen2": {"max_window_layers"},  # beside layer_types, which transformers writes out
}
ANOTHER: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: not value,
    int: lambda value: value + 1,
    float: lambda value: 1.7 * value + 0.1,
    str: lambda value: "something-else",
    list: lambda value: value[::-1] if value[::-1] != value else ["something-else"] * len(value),
    dict: lambda value: {**value, "rope_theta": 4321.0},
    type(None): lambda value: 7,
}


@pytest.mark.parametrize("family", DRAWS)
def test_no_field_is_overlooked(family: str) -> None:
    """Every field that transformers writes, set to another value, gives another model or is refused by its name."""
    from transformers import AutoConfig

    said = drawn(family, next(draw for draw in DRAWS[family] if telling(drawn(family, draw))))
    tiny = {name: value for name, value in TINY.items() if family != "gpt2" or name in ("vocab_size",)}
    config = json.loads(AutoConfig.for_model(family, **{**tiny, **said}).to_json_string())
    spec = spec_of(config)
    unread = {"model_type", *HARMLESS, *CHANGES_NOTHING.get(family, ())}
    overlooked = []
    for name, value in config.items():
        if name in unread or name.startswith("summary_"):
            continue
        try:
            if spec_of({**config, name: ANOTHER[type(value)](value)}).hash == spec.hash:
                overlooked.append(name)
        except UserError:
            pass
    assert not overlooked


def telling(said: dict[str, Any]) -> bool:
    """Whether the fields with a switch are switched on."""
    return said.get("sliding_window", 1) is not None and said.get("use_sliding_window", True)


# ------------------------------------------------------------------------------------------------- gallery, and export

TINY_TWINS = {
    "gemma-2b-tiny": "gemma",
    "gpt2-tiny": "gpt2",
    "granite-3.1-8b-tiny": "granite",
    "mixtral-8x7b-tiny": "mixtral",
    "olmo-2-7b-tiny": "olmo2",
    "qwen2.5-0.5b-tiny": "qwen2",
    "starcoder2-3b-tiny": "starcoder2",
}


def twin(name: str) -> ModelSpec:
    return load_model_spec(GALLERY / f"{name}.yaml")


@pytest.mark.parametrize(("name", "architecture"), TINY_TWINS.items())
def test_the_gallery_is_said_by_its_own_architecture(name: str, architecture: str) -> None:
    stock, refusals = find_stock(twin(name))
    assert stock is not None, refusals
    assert stock.model_type == architecture
    assert spec_of(stock.config).hash == twin(name).hash


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("gemma-2b-tiny", "llama", "embed_scale: got 6.0; a llama model has null"),
        ("llama-3-8b-tiny", "gemma", "embed_scale: got null; a gemma model has"),
        ("gpt-neox-20b-tiny", "gpt2", "embed_positions: got null; a gpt2 model has learned positions"),
        ("gpt2-tiny", "gpt_neox", "embed_positions: got 256; a gpt_neox model has null"),
        ("granite-3.1-8b-tiny", "llama", "embed_scale: got 12.0; a llama model has null"),
        ("qwen3-0.6b-tiny", "mixtral", "attention.qk_norm: got"),
        ("mistral-7b-tiny", "mixtral", 'mlp.type: got swiglu; a mixtral model has "moe"'),
        ("olmo-3-7b-tiny", "olmo2", "attention.window: layers have"),
        ("llama-3-8b-tiny", "qwen2", "attention.qkv_bias: got false; a qwen2 model has true"),
        ("gpt-oss-dense-tiny", "qwen2", "attention.sinks: got true"),
        ("gpt-neox-20b-tiny", "starcoder2", 'residual: got parallel-two-norms; a starcoder2 model has "pre"'),
    ],
)
def test_a_family_says_what_stands_in_its_way(source: str, target: str, message: str) -> None:
    with pytest.raises(CannotSay) as error:
        FAMILIES[target].config(twin(source))
    assert message in str(error.value)
