"""Adapters around linear maps: the equations, merged and not, gradients, and which maps get one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from float64 import assert_as_near, assert_exact, doubled
from helpers import random_ids
from tiny_runs import tiny_model, tiny_train
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.specs.train_lora import LoraSpec
from miniwin.training.adapter_targets import adapter_parameters, adapter_table, check_lora, targets
from miniwin.training.adapters import adapt, adapted, adapter_weights, base_weights, counts, plain_weights, put_adapter
from miniwin.training.loss import next_token_loss
from miniwin.training.optimizer import make_optimizer

MOE = {
    "type": "moe",
    "num_experts": 3,
    "experts_per_token": 2,
    "expert": {"type": "swiglu", "intermediate_size": 16, "bias": True},
    "shared": {"type": "relu2", "intermediate_size": 16},
    "router": {"type": "softmax-topk"},
}


def of(attention: dict[str, Any], mlp: dict[str, Any], **changes: Any) -> ModelSpec:
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    other = {"attention": {**blocks["G"]["attention"], **attention}, "mlp": mlp}
    return tiny_model(blocks={"S": blocks["S"], "G": other}, **changes)


MODELS: dict[str, ModelSpec] = {
    "dense": tiny_model(),
    "experts": of({}, MOE, tie_word_embeddings=False),
    "biases": of({"qkv_bias": True, "o_bias": True, "softcap": 5.0}, {"type": "gelu", "intermediate_size": 48}),
    "gates": of({"position": {"type": "forgetting"}}, {"type": "geglu", "intermediate_size": 16}),
}
KINDS = [
    LoraSpec(r=3, lora_alpha=5),
    LoraSpec(r=3, use_dora=True),
    LoraSpec(r=2, lora_dropout=0.5, target_modules=("*.[qv]_proj", "mlp.*", "layers.1.*"), use_dora=True),
]


def built(model: ModelSpec, lora: LoraSpec, seed: int = 0) -> Decoder:
    """A decoder with adapters that do something."""
    torch.manual_seed(seed)
    decoder = model.build()
    adapt(decoder, lora)
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.rand_like(parameter) - 0.1
    return decoder.eval()


def by_hand(decoder: Decoder, lora: LoraSpec) -> dict[str, Tensor]:
    """The merged weights in float64, from the papers' equations."""
    weights = {name: tensor.double() for name, tensor in base_weights(decoder).items()}
    own = {name: tensor.double() for name, tensor in adapter_weights(decoder).items()}
    for name in adapted(decoder):
        v = (
            weights[f"{name}.weight"]
            + lora.lora_alpha / lora.r * own[f"{name}.lora_B.weight"] @ own[f"{name}.lora_A.weight"]
        )
        if lora.use_dora:
            v = own[f"{name}.lora_magnitude_vector"][:, None] * v / v.square().sum(1, keepdim=True).sqrt()
        weights[f"{name}.weight"] = v
    return weights


def filled(model: ModelSpec, weights: dict[str, Tensor]) -> Decoder:
    with torch.device("meta"):
        decoder = model.build()
    decoder.load_state_dict(weights, assign=True)
    return decoder.eval()


@pytest.mark.parametrize("lora", KINDS, ids=["lora", "dora", "dora of some"])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_merged_equals_unmerged_and_the_equations(name: str, lora: LoraSpec) -> None:
    model = MODELS[name]
    decoder, ids = built(model, lora), random_ids(model, 2, 40)
    exact = filled(model, by_hand(decoder, lora))(ids)
    plain = filled(model, model.build().state_dict())(ids)
    merged, unmerged = filled(model, plain_weights(decoder))(ids), decoder(ids)
    assert float((exact - plain).abs().max()) > 0.05, "the adapters do something"
    assert_exact(doubled(decoder)(ids), exact)
    for ours in (merged, unmerged):
        assert_as_near(ours, filled(model, {n: t.float() for n, t in by_hand(decoder, lora).items()})(ids), exact)


@pytest.mark.parametrize("lora", KINDS[:2], ids=["lora", "dora"])
def test_no_fast_path_passes_by_an_adapter(lora: LoraSpec) -> None:
    """Decoding token by token, whose kernel reads matrices by their addresses, and prefill with a cache."""
    from miniwin.language_model import LanguageModel

    blocks = tiny_model().model_dump(mode="json")["blocks"]
    rope = {**blocks["G"]["attention"], "position": {"type": "rope"}, "head_dim": 32}
    model = tiny_model(pattern="G", blocks={"G": {**blocks["G"], "attention": rope}})
    decoder, ids = built(model, lora), random_ids(model, 1, 12)
    merged = filled(model, plain_weights(decoder))
    exact = filled(model, by_hand(decoder, lora))(ids)
    found = []
    for one in (decoder, merged):
        cache = one.new_cache()
        with torch.no_grad():
            found.append(torch.cat([one(part, cache=cache) for part in ids.split([5, *[1] * 7], 1)], 1))
    assert_as_near(found[0], found[1], exact)
    told = {"temperature": 0.0, "max_new_tokens": 12}
    said = [LanguageModel(one, model, None).generate(ids, **told) for one in (decoder, merged)]  # type: ignore[call-overload]
    assert said[0] == said[1]


@pytest.mark.parametrize("lora", KINDS, ids=["lora", "dora", "dora of some"])
@pytest.mark.parametrize("name", MODELS)
def test_every_adapter_learns_and_nothing_else_does(name: str, lora: LoraSpec) -> None:
    model = MODELS[name]
    decoder = built(model, lora).train()
    first = {name: tensor.clone() for name, tensor in base_weights(decoder).items()}
    before = {name: tensor.clone() for name, tensor in adapter_weights(decoder).items()}
    optimizer = make_optimizer(decoder, parse_spec(tiny_train().model_dump(mode="json"), "train").optimizer)
    ids = random_ids(model, 4, 40)
    next_token_loss(decoder, decoder.hidden(ids[:, :-1]), ids[:, 1:]).backward()
    trained = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert {name for name, p in decoder.named_parameters() if p.grad is not None and bool(p.grad.any())} == trained
    optimizer.step()
    assert all(torch.equal(tensor, first[name]) for name, tensor in base_weights(decoder).items())
    after = adapter_weights(decoder)
    assert after.keys() == before.keys() and not any(torch.equal(after[name], before[name]) for name in after)


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_fresh_adapter_changes_no_bit_and_is_counted(use_dora: bool) -> None:
    model, lora = MODELS["experts"], LoraSpec(r=4, use_dora=use_dora)
    torch.manual_seed(1)
    decoder = model.build()
    first, every = {n: t.clone() for n, t in decoder.state_dict().items()}, model.parameters()
    adapt(decoder, lora)
    for weights in (plain_weights(decoder), base_weights(decoder)):
        assert list(weights) == list(first) and all(torch.equal(weights[name], first[name]) for name in first)
    with torch.device("meta"):
        found = targets(model.build(), lora)
    assert list(found) == list(adapted(decoder)) and not any("router" in name or "head" in name for name in found)
    assert counts(decoder) == (every, adapter_parameters(found.values(), lora))
    assert counts(model.build()) == (every, every)
    table = "\n".join(adapter_table(model, lora))
    assert f"{counts(decoder)[1]:,} parameters of adapters are trained; the model's {every:,} stay" in table
    assert re.search(r"layers\.\*\.mlp\.experts\.\*\.up_proj +3 x \(16, 32\), rank 4", table)


def test_an_adapter_is_taken_over_to_the_bit() -> None:
    model, lora = MODELS["dense"], KINDS[1]
    decoder, other = built(model, lora, 3), built(model, lora, 4)
    other.load_state_dict({**other.state_dict(), **{n: t for n, t in decoder.state_dict().items() if "lora" not in n}})
    put_adapter(other, {name: tensor.clone() for name, tensor in adapter_weights(decoder).items()})
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in decoder.state_dict().items())


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["q_proj"], 2),
        (["layers.0.*"], 7),
        (["mlp.*"], 2 + 3 + 9),
        (["experts.2.*", "gate_proj"], 3 + 1 + 2),
        (["*"], 4 + 4 + 3 + 9 + 2),
    ],
)
def test_patterns(patterns: list[str], wanted: int) -> None:
    with torch.device("meta"):
        found = targets(MODELS["experts"].build(), LoraSpec(target_modules=tuple(patterns)))
    assert len(found) == wanted


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("dense", {"target_modules": ["q_prj"]}, "lora.target_modules.0: got 'q_prj', which no linear map is called; "),
        ("dense", {"target_modules": ["q_prj"]}, "did you mean 'q_proj'?"),
        (
            "dense",
            {"target_modules": ["q_proj", "zzz"]},
            r"target_modules.1: got 'zzz'.* such as layers\.\*\.attention",
        ),
        (
            "experts",
            {"target_modules": ["router"]},
            "and layers.1.mlp.router cannot have an adapter: embeddings, heads",
        ),
        (
            "experts",
            {"target_modules": ["lm_head"]},
            "and lm_head cannot have an adapter: embeddings, heads and router",
        ),
        ("dense", {"target_modules": ["embed_tokens"]}, "and embed_tokens cannot have an adapter"),
        ("dense", {"target_modules": ["norm"]}, "got 'norm', which no linear map is called"),
        ("dense", {"r": 17}, r"lora.r: got 17; layers\.\*\.attention\.k_proj is 16 x 32, and has a rank of 16"),
    ],
)
def test_what_cannot_be_adapted_is_refused(name: str, fields: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=message):
        targets(MODELS[name].build(), LoraSpec.model_validate(fields))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("miniwin.training.adapter_targets.find_spec", lambda name: None)
    start: Any = SimpleNamespace(moves=[])
    with pytest.raises(UserError, match=r"lora needs the package peft, .*: pip install 'miniwin\[peft\]'"):
        check_lora(tiny_model(), tiny_train(lora={}), start)
