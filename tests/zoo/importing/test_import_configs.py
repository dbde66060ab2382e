"""What a config.json may say, field by field: honoured, without a meaning, or refused with one message; and what a
family has no words for on the way back.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hf_models import config_of, meaning, spec_of

from miniwin.specs import UserError
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import CannotSay
from miniwin.zoo.importing.layout import pattern_of

FULL, SLIDING = "full_attention", "sliding_attention"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
REFUSED = [
    ("llama", {"hidden_act": "relu"}, "hidden_act: got 'relu'; expected one of silu, swish, gelu"),
    ("llama", {"hidden_size": "32"}, "hidden_size: got '32'; expected a positive whole number"),
    ("llama", {"hidden_size": None}, "hidden_size: got null; expected a positive whole number"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads: got 3; it must divide num_attention_heads 4"),
    ("llama", {"attention_bias": "yes"}, "attention_bias: got 'yes'; expected true or false"),
    ("llama", {"is_causal": False}, "is_causal: got false; every token would see those after it; only causal"),
    ("gpt_neox", {"is_causal": False, "num_key_value_heads": 4}, "is_causal: got false; every token would see those"),
    ("llama", {"num_hidden_layers": 0}, "num_hidden_layers: got 0; expected a positive whole number"),
    ("llama", {"rope_thta": 5e5}, "remove it if it does not, or did you mean rope_theta?"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantised weights cannot be imported; save the model unquantised"),
    ("llama", {"sliding_window": 64}, "sliding_window: got 64; llama models have no such field"),
    ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier: got 12.0; llama models have no such field"),
    ("llama", {"rope_parameters": {"rope_type": "su"}}, "rope_type 'su' is not known; expected one of default, linear"),
    ("llama", {"rope_parameters": {**YARN, "mrope_section": [1]}}, "mrope_section has no meaning for rope_type 'yarn'"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor: expected a number, got null"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "say the length that the model will be"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: got 0.5; a llama model rotates whole heads"),
    ("llama", {"rope_parameters": {"full_attention": YARN}}, "full_attention has no meaning for rope_type 'default'"),
    ("mistral", {"layer_types": [FULL, SLIDING, FULL]}, "layer_types: got 'full_attention'; expected sliding_att"),
    ("mistral", {"attention_bias": True}, "attention_bias: got true; mistral models have no such field"),
    ("qwen3", {"layer_types": [FULL, "chunked_attention", FULL]}, "layer_types: got 'chunked_attention'; expected"),
    ("qwen3", {"layer_types": [FULL, SLIDING, FULL]}, "sliding layers need sliding_window, and use_sliding_window"),
    ("qwen3", {"layer_types": [FULL]}, "layer_types: got ['full_attention']; expected 3 names, one for each layer"),
    ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers: got [1, 0]; expected 3 whole numbers, one for each layer"),
    ("smollm3", {"no_rope_layers": [1, 0, 2]}, "no_rope_layers: got [1, 0, 2]; expected 1 (rotates) or 0 (does not)"),
    ("smollm3", {"layer_types": [FULL, FULL, SLIDING]}, "sliding layers need sliding_window, and use_sliding_window"),
    ("phi3", {"rope_parameters": YARN}, "short_factor: expected a list of numbers, one for each rotated pair"),
    ("phi3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_type default or longrope"),
    ("olmo3", {}, "rope_parameters: got {'rope_type': 'default', 'rope_theta': 10000.0}; expected them by layer type"),
    ("olmo3", {"rope_parameters": None, "rope_theta": 1e4}, "transformers 5 reads it for the full layers only"),
    ("exaone4", {"sliding_window": None, "layer_types": [FULL, FULL, SLIDING]}, "sliding layers need a sliding_window"),
    ("exaone4", {"sliding_window_pattern": "LLLG"}, "sliding_window_pattern: got 'LLLG'; expected a positive"),
]


@pytest.mark.parametrize(("family", "fields", "message"), REFUSED)
def test_what_cannot_be_honoured_is_refused(family: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        spec_of(config_of(family, **fields))
    assert message in str(error.value)


# As published on the Hub, sizes aside: older forms, and fields that mean nothing, beside those that count.
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LISTS = {"short_factor": [1.0] * 4, "long_factor": [1.1] * 4}
PHI3 = {"original_max_position_embeddings": 4096, "max_position_embeddings": 131072, "rope_theta": 10000.0}
TYPES = [SLIDING, SLIDING, SLIDING, FULL]
PUBLISHED: dict[str, tuple[dict[str, Any], str]] = {
    "llama": (
        {
            "rope_scaling": {**LLAMA3, "rope_type": "llama3"},
            "rope_theta": 500000.0,
            "max_position_embeddings": 131072,
            "pretraining_tp": 1,
            "eos_token_id": [1, 2],
            "_attn_implementation_autoset": True,
            "is_llama_config": True,
            "rope_interleaved": False,
        },
        "GGGG",
    ),
    "mistral": ({"sliding_window": 4096, "rope_theta": 10000.0}, "SSSS"),
    "qwen3": (
        {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 36, "rope_theta": 1000000},
        "GGGG",
    ),
    "smollm3": (
        {"no_rope_layers": [1, 1, 1, 0], "max_window_layers": 28, "pretraining_tp": 2, "rope_theta": 5e6},
        "GGGH",
    ),
    "phi3": (
        {**PHI3, "rope_scaling": {**LISTS, "type": "longrope"}, "sliding_window": 262144, "embd_pdrop": 0.0},
        "SSSS",
    ),
    "olmo3": ({"layer_types": TYPES, "rope_theta": 500000, "rope_scaling": {**YARN, "beta_fast": 32.0}}, "SSSG"),
    "exaone4": (
        {
            "layer_types": TYPES,
            "sliding_window_pattern": "LLLG",
            "rope_theta": 1000000,
            "rope_scaling": {**LLAMA3, "rope_type": "llama3"},
            "cache_implementation": "hybrid",
        },
        "SSSG",
    ),
}


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_configs_as_published(family: str) -> None:
    said, layout = PUBLISHED[family]
    config = config_of(family, num_hidden_layers=4, **said)
    del config["rope_parameters"]
    spec = spec_of(config)
    assert spec.layout == layout
    scaled = {"llama": "llama3", "phi3": "longrope", "olmo3": "yarn"}.get(family)
    scaling = getattr(spec.layer_specs[-1].attention.position, "scaling", None)
    assert getattr(scaling, "type", None) == scaled


def test_fields_that_change_nothing_are_let_through() -> None:
    plain = spec_of(config_of("llama"))
    extra = {"attention_dropout": 0.1, "pretraining_tp": 2, "use_cache": False, "dtype": "bfloat16", "some_note": "x"}
    off = {
        "is_causal": True,
        "quantization_config": None,
        "sliding_window": None,
        "attn_logit_softcapping": None,
        "mlp_bias": False,
    }
    assert meaning(spec_of(config_of("llama", **extra, **off))) == meaning(plain)


def test_the_older_form_of_rotary_parameters() -> None:
    old = config_of("llama", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    del old["rope_parameters"]
    new = config_of("llama", rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0})
    assert meaning(spec_of(old)) == meaning(spec_of(new))
    old = config_of("olmo3", rope_scaling=YARN)
    del old["rope_parameters"]
    local = {"rope_type": "default", "rope_theta": 5e5}
    new = config_of("olmo3", rope_parameters={FULL: {**YARN, "rope_theta": 5e5}, SLIDING: local})
    assert meaning(spec_of(old)) == meaning(spec_of(new))
    assert spec_of(config_of("olmo3", **{"rope_parameters": {FULL: local, SLIDING: local}})).layout == "SSS"


def test_length_decides_where_the_source_looks_at_it() -> None:
    """LongRoPE: up to the original context, the short factors, whatever the longest is; dynamic: none up to there."""
    lists = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    said = {"rope_parameters": {"rope_type": "longrope", **lists}, "original_max_position_embeddings": 128}

    def scaling_of(config: dict[str, Any], **asked: Any) -> Any:
        return spec_of(config, **asked).layer_specs[0].attention.position.scaling

    assert scaling_of(config_of("phi3", **said)).factors == [9.0] * 4
    assert scaling_of(config_of("phi3", **said), length=128).factors == [1.0] * 4
    assert scaling_of(config_of("phi3", **said), length=129).factors == [9.0] * 4
    dynamic = config_of("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0})
    assert scaling_of(dynamic, length=512) is None
    assert scaling_of(dynamic, length=513).length == 513
    with pytest.raises(UserError, match="length: got 0; expected the number of tokens the model will be run at"):
        scaling_of(dynamic, length=0)


@pytest.mark.parametrize(
    ("layout", "pattern", "last"),
    [
        ("SSSGSSSG", "SSSG", None),
        ("SSSGSSG", "SSSG", "G"),
        ("SSSGSSSS", "SSSG", "S"),
        ("GGGG", "G", None),
        ("SSSS", "S", None),
        ("SG", "SG", None),
        ("GSSGGS", "GSSG", "S"),
        ("GGSGSS", "GGSGSS", None),
        ("SSSSSG", "S", "G"),
    ],
)
def test_layers_become_the_shortest_pattern(layout: str, pattern: str, last: str | None) -> None:
    found = pattern_of(layout)
    assert (found["pattern"], found.get("last")) == (pattern, last)


SAID = [
    ("llama", {}, {"logit_softcap": 30.0}, "logit_softcap: got 30.0; a llama model has null"),
    ("llama", {}, {"embed_scale": 4.0}, "embed_scale: got 4.0; a llama model has null"),
]


@pytest.mark.parametrize(("family", "fields", "changes", "message"), SAID)
def test_what_a_config_cannot_say(family: str, fields: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    spec = spec_of(config_of(family, **fields)).model_copy(update=changes)
    with pytest.raises(CannotSay) as error:
        FAMILIES[family].config(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("mistral", "llama", "attention.window: got 4096; a llama model has null"),
        ("qwen3", "llama", "attention.qk_norm: got"),
        ("olmo3", "qwen3", 'residual: got post; a qwen3 model has "pre"'),
        ("smollm3", "mistral", "attention.position: layers have"),
        ("llama", "olmo3", 'residual: got pre; a olmo3 model has "post"'),
        ("minimind", "qwen3", "mlp: got moe; a qwen3 config has no words for it"),
    ],
)
def test_a_family_says_what_stands_in_its_way(source: str, target: str, message: str) -> None:
    config = config_of(source, num_hidden_layers=4)
    if source == "olmo3":
        config["rope_parameters"] = None
    if source == "minimind":
        config |= {"use_moe": True, "moe_intermediate_size": 16, "num_experts": 2}
    with pytest.raises(CannotSay) as error:
        FAMILIES[target].config(spec_of(config))
    assert message in str(error.value)


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("smollm3", {"use_sliding_window": True, "sliding_window": 5}),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 5, "no_rope_layer_interval": 2}),
        ("olmo3", {"sliding_window": 5, "rope_parameters": None}),
        ("exaone4", {"sliding_window": 5, "sliding_window_pattern": 3}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
        ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 24}),
        ("phi3", {"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 99}}),
    ],
)
def test_what_a_config_leaves_out_is_what_transformers_fills_in(family: str, said: dict[str, Any]) -> None:
    """Saved by transformers, a config has every layer's type written out; here it is left to the default."""
    from transformers import AutoConfig

    config = config_of(family, num_hidden_layers=5, **said)
    theirs = AutoConfig.for_model(**json.loads(json.dumps(config)))
    assert meaning(spec_of(config)) == meaning(spec_of(json.loads(theirs.to_json_string())))
