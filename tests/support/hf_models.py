"""Tiny models of transformers with random weights, to import and to compare with.

model = hf_model("llama", seed=3, num_hidden_layers=2, ...)     # every weight clearly random, logits of order 1
decoder = imported(model, tmp_path)                             # through files: save_pretrained, read, our rules
compare(model, decoder, ids)                                    # prefill and decode, theirs and ours
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from float64 import all_float64, as_double, assert_as_near, assert_exact, called_in_float64, in_float64
from safetensors import safe_open
from torch import Tensor, nn

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec, parse_spec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import DERIVED, Family, Rule, fitting

TINY: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


# GPT-2 has other names for its sizes, and no other fields.
NOT_OF_GPT2 = {*TINY} - {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"}


def hf_model(model_type: str, seed: int = 0, **fields: Any) -> Any:
    """A causal language model of transformers, tiny unless `fields` says otherwise, with every weight drawn."""
    import transformers
    from transformers.initialization import no_init_weights

    tiny = {name: value for name, value in TINY.items() if model_type != "gpt2" or name not in NOT_OF_GPT2}
    config = transformers.AutoConfig.for_model(model_type, **{**tiny, **fields})
    with no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):  # `draw_weights` tells gains from biases by what they start at
            module.reset_parameters()
    model.tie_weights()
    draw_weights(model, seed)
    return model


@torch.no_grad()
def draw_weights(model: Any, seed: int) -> None:
    """Draw matrices so that activations stay of order 1. All else is drawn far from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    turned = {id(module.weight) for module in model.modules() if type(module).__name__ == "Conv1D"}  # (inputs, outputs)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if id(weight) in turned:
            weight.copy_(noise * 1.2 * weight.shape[0] ** -0.5)
            continue
        if "embed" in name and weight.dim() == 2:
            weight.copy_(noise * 2 * weight.shape[1] ** -0.5)
        elif weight.dim() >= 2:
            gain = 1.5 if any(part in name for part in ("q_proj", "k_proj", "qkv", "query_key")) else 1.0
            weight.copy_(noise * gain * weight.shape[-1] ** -0.5)
        elif bool((weight == 1).all()):
            weight.copy_(1 + 0.2 * noise)
        else:  # biases, gains that count from zero, sinks
            weight.copy_(0.3 * noise)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def by_rules(rules: list[Rule], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state, made of their tensors. Every tensor of theirs is used."""
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in rules:
        used |= {*rule.theirs, *rule.copies}
        state |= zip(rule.ours, rule.read([tensors[name] for name in rule.theirs]), strict=True)
        for copy in rule.copies:
            assert copy not in tensors or torch.equal(tensors[copy], tensors[rule.theirs[0]])
    left = [name for name in tensors if name not in used and not DERIVED.search(name)]
    assert not left, f"no rule reads {left}"
    return state


def back_by_rules(rules: list[Rule], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, made of our state: the inverse of `by_rules`."""
    tensors: dict[str, Tensor] = {}
    for rule in rules:
        tensors |= zip(rule.theirs, rule.write([state[name] for name in rule.ours]), strict=True)
    return tensors


def family_of(config: Mapping[str, Any]) -> Family:
    return FAMILIES[config["model_type"]]


def spec_of(config: dict[str, Any], **asked: Any) -> ModelSpec:
    """The model spec of a config.json."""
    spec: ModelSpec = parse_spec(family_of(config).spec(config, "imported", Asked(asked, config)), "model")
    return spec


def imported(model: Any, folder: Path, **asked: Any) -> tuple[ModelSpec, Decoder]:
    """Our decoder for a saved model, with the model's weights."""
    saved(model, folder)
    return of_tensors(read_config(folder), read_tensors(folder), **asked)


def held(model: Any, **asked: Any) -> tuple[ModelSpec, Decoder]:
    """The same without files, whose names and forms of tensors may be others than those in memory."""
    tensors = model.state_dict()
    if model.config.tie_word_embeddings:  # left out of files, too
        del tensors["embed_out.weight" if "embed_out.weight" in tensors else "lm_head.weight"]
    return of_tensors(json.loads(model.config.to_json_string()), tensors, **asked)


def of_tensors(config: dict[str, Any], tensors: dict[str, Tensor], **asked: Any) -> tuple[ModelSpec, Decoder]:
    spec = spec_of(config, **asked)
    decoder = spec.build().eval()
    decoder.load_state_dict(by_rules(fitting(family_of(config).rules(spec), tensors), tensors), strict=True)
    return spec, decoder


def exported(family: Family, spec: ModelSpec, decoder: Decoder) -> Any:
    """Our spec and weights as a model of transformers in float64, by `Family.config` and `Rule.write`.

    The config holds plain JSON, and every weight of the model is set.
    """
    import transformers

    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(family.config(spec))))
    with all_float64():
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
        ).eval()
    # In memory some families have other names than on disk.
    tensors = back_by_rules(fitting(family.rules(spec), model.state_dict()), decoder.state_dict())
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    tied = {"lm_head.weight"} if spec.tie_word_embeddings else set()
    assert not unexpected and set(missing) <= tied, (missing, unexpected)
    model.tie_weights()
    model.forward = called_in_float64(model.forward)
    return model


def meaning(spec: ModelSpec) -> dict[str, Any]:
    """All that decides a model's function, however the spec is written. Initial weights do not."""
    return {name: value for name, value in spec.canonical().items() if name != "init"}


@torch.no_grad()
def hf_logits(model: Any, ids: Tensor, prefill: int | None = None) -> Tensor:
    """Logits of one call, or of a prefill and then token by token through its own cache."""
    if prefill is None:
        return model(ids, use_cache=False).logits
    out = model(ids[:, :prefill], use_cache=True)
    parts, cache = [out.logits], out.past_key_values
    for t in range(prefill, ids.shape[1]):
        out = model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        parts.append(out.logits)
        cache = out.past_key_values
    return torch.cat(parts, dim=1)


@torch.no_grad()
def our_logits(decoder: Decoder, ids: Tensor, prefill: int) -> Tensor:
    """Logits of a prefill and then token by token through our cache."""
    cache = decoder.new_cache(len(ids))
    parts = [decoder(ids[:, :prefill], cache=cache)]
    parts += [decoder(ids[:, t : t + 1], cache=cache) for t in range(prefill, ids.shape[1])]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def compare(model: Any, decoder: Decoder, ids: Tensor, hf_prefill: int | None = 1, our_prefill: int = 1) -> Tensor:
    """Our model computes their function, and our float32, prefill and decode, is as near to it as theirs.

    The function is compared in float64, prefill and decode, since float32 would hide a small fault in its rounding.
    Returns the logits in float64.

    hf_prefill: tokens of their first call, after which they decode one by one. None: their decoding disagrees with
    their prefill (rotations that change with the length at hand).
    """
    twin = in_float64(model)
    exact = hf_logits(twin, ids)
    assert 0.3 < float(exact.std()) < 30, "logits of order 1, or the comparison says little"
    with as_double(decoder):
        assert_exact(decoder(ids), exact)
    if hf_prefill is not None:
        assert_exact(hf_logits(twin, ids, hf_prefill), exact)
    theirs = hf_logits(model, ids)
    assert_as_near(decoder(ids), theirs, exact)
    assert_as_near(our_logits(decoder, ids, our_prefill), theirs, exact)
    return exact


def random_ids(length: int, seed: int = 0, batch: int = 1, vocab_size: int = 61) -> Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def config_of(family: str, **fields: Any) -> dict[str, Any]:
    """A config.json as transformers 5 writes it, with the fields of `fields` in it."""
    head = {"head_dim": 8} if family == "qwen3" else {}
    rope = {"rope_type": "default", "rope_theta": 1e4}
    return {"model_type": family, **TINY, **head, "rope_parameters": rope} | fields
