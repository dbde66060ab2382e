"""Mixture of experts: against a naive float64 loop over tokens and transformers' modules; balance; cost; training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from float64 import all_float64, assert_as_near, assert_exact, doubled
from helpers import GLOBAL, attention, enliven, largest, random_ids, tiny_spec
from tiny_runs import tiny_model, tiny_train, write_text
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssConfig, GptOssMLP
from transformers.models.llama4.modeling_llama4 import Llama4TextConfig, Llama4TextMoe
from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeConfig,
    Qwen3MoeSparseMoeBlock,
    load_balancing_loss_func,
)

import miniwin
from miniwin.blocks.mlps.moe import MixtureOfExperts, MixtureOfExpertsSpec, imbalance, loads
from miniwin.blocks.mlps.routers import Routes
from miniwin.runs import RunResult, read_metrics
from miniwin.specs import UserError
from miniwin.training.launch import train

HIDDEN, EXPERTS = 6, 5
ROUTERS: dict[str, dict[str, Any]] = {
    "normalised": {"type": "softmax-topk"},
    "softmax-topk": {"type": "softmax-topk", "normalise": False},
    "topk-softmax": {"type": "topk-softmax"},
    "topk-sigmoid": {"type": "topk-sigmoid"},
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stirred(module: Any, seed: int = 5) -> Any:
    for i, parameter in enumerate(module.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed + i))
    return module


def moe_fields(routing: str = "normalised", /, **fields: Any) -> dict[str, Any]:
    expert = {"type": "swiglu", "intermediate_size": 4, "bias": True}
    counts = {"num_experts": EXPERTS, "experts_per_token": 2}
    return {"type": "moe", **counts, "expert": expert, "router": ROUTERS[routing], **fields}


def moe_spec(routing: str = "normalised", /, **fields: Any) -> MixtureOfExpertsSpec:
    return MixtureOfExpertsSpec.model_validate(moe_fields(routing, **fields))


# ---- The function computed


def token_by_token(moe: MixtureOfExperts, x: Tensor, router: str, k: int) -> Tensor:
    """The definition, a token at a time. moe must be in float64."""
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        logits = moe.router.weight @ token + (0 if moe.router.bias is None else moe.router.bias)
        best = sorted(range(len(logits)), key=lambda e: -float(logits[e].detach()))[:k]
        if router == "topk-sigmoid":
            row = sum(moe.experts[e](token / (1 + torch.exp(-logits[e]))) for e in best)
        else:
            exponentials = torch.exp(logits)
            total = sum(exponentials) if router == "softmax-topk" else sum(exponentials[e] for e in best)
            row = sum(exponentials[e] / total * moe.experts[e](token) for e in best)
        rows.append(row if moe.shared is None else row + moe.shared(token))
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("shared", [None, {"type": "gelu", "intermediate_size": 3}], ids=["", "shared"])
@pytest.mark.parametrize("k", [1, 2, EXPERTS])
@pytest.mark.parametrize("router", ROUTERS)
def test_it_equals_a_loop_over_tokens_gradients_too(router: str, k: int, shared: Any) -> None:
    spec = moe_spec(router, experts_per_token=k, shared=shared, router_bias=k == 2)
    moe, naive = stirred(spec.build(HIDDEN)), stirred(spec.build(HIDDEN)).double()
    x, cotangent = draw(2, 7, HIDDEN).requires_grad_(), draw(2, 7, HIDDEN, seed=1)
    a = x.detach().double().requires_grad_()
    y, want = moe(x), token_by_token(naive, a, router, k)
    scale = float(want.detach().abs().max())
    assert largest(y, want) < 1e-5 * scale
    assert largest(naive(a), want) < 1e-13 * scale  # float64 stays float64
    got = torch.autograd.grad(y, [x, *moe.parameters()], cotangent, allow_unused=True)
    expected = torch.autograd.grad(want, [a, *naive.parameters()], cotangent.double(), allow_unused=True)
    for (name, _), one, other in zip([("x", x), *moe.named_parameters()], got, expected, strict=True):
        other = torch.zeros(()) if other is None else other
        one = torch.zeros_like(other) if one is None else one
        assert largest(one, other) < 1e-5 * max(1.0, float(other.abs().max())), name
    if k > 1 or router in ("softmax-topk", "topk-sigmoid"):  # else the single weight is 1, whatever the logits are
        assert float(got[1].abs().max()) > 1e-3, "the router learns from the experts' outputs"


def test_softmax_topk_normalised_is_topk_softmax() -> None:
    one, other = (stirred(moe_spec(router).build(HIDDEN)) for router in ("normalised", "topk-softmax"))
    x = draw(3, 9, HIDDEN)
    assert largest(one(x), other(x)) < 1e-5
    assert largest(one(x), stirred(moe_spec("softmax-topk").build(HIDDEN))(x)) > 0.1


@torch.no_grad()
def test_an_expert_that_got_no_token_is_not_run_and_tokens_alone_give_the_same() -> None:
    moe = stirred(moe_spec(num_experts=9).build(HIDDEN)).eval()
    ran: list[int] = []
    for e, expert in enumerate(moe.experts):
        expert.register_forward_hook(lambda module, arguments, out, e=e: ran.append(e))
    x = draw(1, 12, HIDDEN)
    together = moe(x)
    assert len(ran) == len(set(ran)) > 2, "one call an expert, whatever the number of tokens"
    for t in range(12):
        ran.clear()
        assert largest(moe(x[:, t : t + 1]), together[:, t : t + 1]) < 1e-5
        assert len(ran) == 2, "decoding a token runs its two experts and no other"


@torch.no_grad()
def test_in_bfloat16_the_router_decides_in_float32() -> None:
    moe = stirred(moe_spec(num_experts=64, experts_per_token=4).build(HIDDEN)).bfloat16()
    x = draw(200, HIDDEN).bfloat16()
    routes = moe.router(x)
    logits = x.double() @ moe.router.weight.double().T
    assert routes.weights.dtype == torch.float32
    assert torch.equal(routes.experts, logits.topk(4).indices)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(moe.float().router(x.float()).experts, routes.experts)
        assert moe(x.float()).dtype == torch.float32
    assert moe.bfloat16()(x).dtype == torch.bfloat16


@torch.no_grad()
def test_prefill_equals_decoding_in_a_model() -> None:
    block = {"attention": attention(None, GLOBAL), "mlp": moe_fields(num_experts=6)}
    spec = tiny_spec({"X": block})
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 2, 15)
    cache = decoder.new_cache(batch_size=2)
    steps = [decoder(ids[:, t : t + 1], cache=cache) for t in range(15)]
    assert largest(torch.cat(steps, 1), decoder(ids)) < 1e-4


# ---- transformers' modules, with their weights copied


def unstacked(theirs: nn.Module, ours: MixtureOfExperts, kind: str) -> None:
    """Copy stacked expert weights into ours. Gate and up are one matrix, in halves or interleaved, maybe transposed."""
    state = theirs.state_dict()
    router = "gate.weight" if kind == "rows" else "router.weight"
    found = {"router.weight": state[router]}
    if "router.bias" in state:
        found["router.bias"] = state["router.bias"]
    for e in range(len(ours.experts)):
        both, down = state["experts.gate_up_proj"][e], state["experts.down_proj"][e]
        if kind == "rows":
            gate, up = both.chunk(2)
        elif kind == "interleaved":
            gate, up, down = both[:, ::2].T, both[:, 1::2].T, down.T
            found[f"experts.{e}.gate_proj.bias"] = state["experts.gate_up_proj_bias"][e, ::2]
            found[f"experts.{e}.up_proj.bias"] = state["experts.gate_up_proj_bias"][e, 1::2]
            found[f"experts.{e}.down_proj.bias"] = state["experts.down_proj_bias"][e]
        else:
            gate, up, down = (*both.T.chunk(2), down.T)
        found |= {f"experts.{e}.{n}.weight": w for n, w in (("gate_proj", gate), ("up_proj", up), ("down_proj", down))}
    found |= {key.replace("_expert", ""): value for key, value in state.items() if key.startswith("shared_expert.")}
    ours.load_state_dict(found)


SIZES = {"hidden_size": 16, "intermediate_size": 12, "num_experts_per_tok": 3, "num_attention_heads": 2}
SWIGLU, CLAMPED = ({"type": t, "intermediate_size": 12, "bias": t != "swiglu"} for t in ("swiglu", "clamped-swiglu"))
THEIRS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "qwen3-moe": (
        lambda: Qwen3MoeSparseMoeBlock(
            Qwen3MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=12, norm_topk_prob=True)
        ),
        moe_fields("normalised", expert=SWIGLU),
        "rows",
    ),
    "qwen3-moe-unnormalised": (
        lambda: Qwen3MoeSparseMoeBlock(
            Qwen3MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=12, norm_topk_prob=False)
        ),
        moe_fields("softmax-topk", expert=SWIGLU),
        "rows",
    ),
    "mixtral": (
        lambda: MixtralSparseMoeBlock(MixtralConfig(**SIZES, num_local_experts=8, num_key_value_heads=2)),
        moe_fields("topk-softmax", expert=SWIGLU),
        "rows",
    ),
    "gpt-oss": (
        lambda: GptOssMLP(GptOssConfig(**SIZES, num_local_experts=8)),
        moe_fields("topk-softmax", expert=CLAMPED, router_bias=True),
        "interleaved",
    ),
    "llama4": (
        lambda: Llama4TextMoe(Llama4TextConfig(**SIZES, num_local_experts=8)),
        moe_fields("topk-sigmoid", expert=SWIGLU, shared=SWIGLU),
        "columns",
    ),
}


def only(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_it_equals_transformers(name: str) -> None:
    make, fields, kind = THEIRS[name]
    theirs = make().eval()
    ours: Any = MixtureOfExpertsSpec.model_validate({**fields, "num_experts": 8, "experts_per_token": 3}).build(16)
    for seed in range(3):
        stirred(theirs, seed=100 * seed)
        unstacked(theirs, ours, kind)
        x = draw(2, 11, 16, seed=7 + seed)
        with all_float64():
            exact = only(doubled(theirs)(x.double())).view(x.shape)
        assert_exact(doubled(ours)(x.double()), exact, 1e-12)
        assert_as_near(ours(x), only(theirs(x)).view(x.shape), exact)


# ---- Balance


def routes_of(logits: Tensor, k: int) -> Routes:
    shares = logits.softmax(-1)
    weights, experts = shares.topk(k, dim=-1)
    return Routes(experts, weights, shares)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_balance_loss_equals_its_equation(k: int) -> None:
    routes = routes_of(2 * draw(40, EXPERTS), k)
    f = [sum(int(e) == expert for row in routes.experts for e in row) / (40 * k) for expert in range(EXPERTS)]
    p = [float(routes.shares[:, expert].double().sum()) / 40 for expert in range(EXPERTS)]
    want = EXPERTS * sum(a * b for a, b in zip(f, p, strict=True))
    assert float(imbalance(routes)) == pytest.approx(want, rel=1e-5)
    theirs = load_balancing_loss_func((2 * draw(40, EXPERTS),), EXPERTS, k)
    assert float(imbalance(routes)) == pytest.approx(float(theirs) / k, rel=1e-5)  # theirs: each token K times


def test_the_balance_loss_is_one_when_even_and_the_number_of_experts_when_all_go_to_one() -> None:
    even = 30 * torch.eye(EXPERTS).repeat(4, 1)
    assert float(imbalance(routes_of(even, 1))) == pytest.approx(1, rel=1e-4)
    one = 30 * torch.eye(EXPERTS)[:1].repeat(20, 1)
    assert float(imbalance(routes_of(one, 1))) == pytest.approx(EXPERTS, rel=1e-4)


def test_it_is_there_in_training_once_and_nowhere_else() -> None:
    moe: Any = stirred(moe_spec(balance_loss=0.5).build(HIDDEN))
    x = draw(2, 9, HIDDEN)
    moe(x)
    loss = moe.take_auxiliary_loss()
    want = 0.5 * imbalance(moe.router(x.view(-1, HIDDEN))).detach()
    assert float(loss.detach()) == pytest.approx(float(want), rel=1e-5)
    assert moe.take_auxiliary_loss() is None
    moe(x)
    moe.eval()(x)
    assert moe.take_auxiliary_loss() is None, "an evaluation leaves none, not even an older one"
    moe.train()
    with torch.no_grad():
        moe(x)
    assert moe.take_auxiliary_loss() is None
    without: Any = stirred(moe_spec(balance_loss=0).build(HIDDEN))
    without(x)
    assert without.take_auxiliary_loss() is None


def test_its_gradient_reaches_the_router_and_pushes_towards_balance() -> None:
    moe: Any = stirred(moe_spec(balance_loss=1.0).build(HIDDEN))
    x = draw(64, HIDDEN)
    before = float(imbalance(moe.router(x)).detach())
    for _ in range(100):
        moe(x)
        (slope,) = torch.autograd.grad(moe.take_auxiliary_loss(), [moe.router.weight])
        assert float(slope.abs().max()) > 0
        with torch.no_grad():
            moe.router.weight -= 0.3 * slope
    assert float(imbalance(moe.router(x)).detach()) - 1 < 0.5 * (before - 1)


# ---- Training


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunResult]:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path)
    fixed: dict[str, Any] = {"base": tmp_path, "progress": False, "tracking": "off", "device": "cpu"}

    def go(out: str, coefficient: float, options: dict[str, Any] | None = None, **changes: Any) -> RunResult:
        fields = moe_fields("normalised", num_experts=8, experts_per_token=1, balance_loss=coefficient)
        attentions = {letter: block.attention.model_dump() for letter, block in tiny_model().blocks.items()}
        model = tiny_model(blocks={name: {"attention": a, "mlp": fields} for name, a in attentions.items()})
        return train(model, tiny_train(**changes), out=tmp_path / out, **fixed, **(options or {}))

    return go


def spread(result: RunResult) -> float:
    """How unevenly the trained experts are used: the largest share over the fair share, mean over layers."""
    model = miniwin.load(result.folder)
    text = torch.tensor(list((result.folder.parent / "text.txt").read_bytes()[:512])).view(4, 128)
    shares = []

    def look(router: nn.Module, arguments: Any, routes: Routes) -> None:
        counts = loads(routes.experts.flatten(), 8)
        shares.append(max(counts) * 8 / sum(counts))

    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            module.router.register_forward_hook(look)
    with torch.no_grad():
        model(text)
    return sum(shares) / len(shares)


def test_training_balances_the_experts_and_reports_the_plain_loss(run: Callable[..., RunResult]) -> None:
    plain, balanced = run("plain", 0.0), run("balanced", 0.3)
    assert spread(balanced) < 0.75 * spread(plain)
    lines, without = read_metrics(balanced.folder), read_metrics(plain.folder)
    assert all("auxiliary_loss" not in line for line in without)
    assert all(2 * 0.3 * 0.9 < line["auxiliary_loss"] < 2 * 0.3 * 8 for line in lines)  # two layers
    assert lines[0]["loss"] == without[0]["loss"], "the same weights have the same loss: nothing is added to it"
    assert lines[0]["grad_norm"] != without[0]["grad_norm"] and lines[-1]["loss"] != without[-1]["loss"]


def test_accumulated_passes_add_their_mean(run: Callable[..., RunResult]) -> None:
    """Two passes of two rows have the loss of one pass of four. Balance losses are each pass's own: about the same."""
    whole = read_metrics(run("whole", 0.3, tokens=128).folder)[0]
    halves = read_metrics(run("halves", 0.3, tokens=128, batch_size=2, gradient_accumulation=2).folder)[0]
    assert halves["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert halves["auxiliary_loss"] == pytest.approx(whole["auxiliary_loss"], rel=0.1)
    assert halves["grad_norm"] == pytest.approx(whole["grad_norm"], rel=0.1)


def test_an_evaluation_between_steps_changes_nothing(run: Callable[..., RunResult]) -> None:
    def on_eval(rung: int, model: Any) -> None:
        model(torch.arange(40).view(1, 40))
        assert model.decoder.auxiliary_loss() is None

    plain = read_metrics(run("plain", 0.3, tokens=640).folder)
    asked = read_metrics(run("asked", 0.3, {"on_eval": on_eval, "eval_at": [128, 256]}, tokens=640).folder)
    names = ("loss", "auxiliary_loss", "grad_norm")
    assert [[line[n] for n in names] for line in asked] == [[line[n] for n in names] for line in plain]


# ---- Spec, cost, initialisation


@pytest.mark.parametrize("shared", [None, {"type": "gelu", "intermediate_size": 3, "bias": True}], ids=["", "shared"])
@pytest.mark.parametrize("bias", [False, True])
def test_costs_are_those_of_what_is_built(bias: bool, shared: Any) -> None:
    spec = moe_spec(router_bias=bias, shared=shared)
    moe: Any = spec.build(HIDDEN).eval()
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in moe.named_modules() if name}
    assert spec.parameters(HIDDEN) == sum(p.numel() for p in moe.parameters())
    always = count["router"] + count.get("shared", 0)
    assert spec.active_parameters(HIDDEN) == always + 2 * count["experts.0"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        moe(draw(7, HIDDEN))
    assert counter.get_total_flops() == 7 * spec.flops(HIDDEN)
    names = set(moe.state_dict())
    assert {"router.weight", "experts.0.gate_proj.weight", f"experts.{EXPERTS - 1}.down_proj.bias"} <= names
    assert ("router.bias" in names, "shared.up_proj.bias" in names) == (bias, shared is not None)
    assert moe.router.weight.shape == (EXPERTS, HIDDEN)


def test_it_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert moe_spec(shared={"intermediate_size": 4}).build(HIDDEN)(torch.empty(2, 7, HIDDEN)).shape == (2, 7, 6)


def test_experts_are_initialised_as_other_mlps_are() -> None:
    expert = {"type": "swiglu", "intermediate_size": 128, "bias": True}
    mlp = moe_fields(num_experts=3, expert=expert, shared=expert, router_bias=True)
    block = {"attention": attention(None, GLOBAL), "mlp": mlp}
    decoder = tiny_spec({"X": block}, hidden_size=64, num_layers=8, pattern="X", init={"std": 0.05}).build()
    for name, parameter in decoder.layers[3].mlp.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            writes = name.endswith("down_proj.weight")
            assert float(parameter.detach().std()) == pytest.approx(0.05 / 4 if writes else 0.05, rel=0.15), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts_per_token": 6}, "blocks.X.mlp.experts_per_token: got 6; expected at most num_experts 5: a token"),
        ({"expert": moe_fields()}, "blocks.X.mlp.expert: got a moe; expected one MLP"),
        ({"shared": moe_fields()}, "blocks.X.mlp.shared: got a moe; expected one MLP"),
        ({"router": {"type": "softmax-topx"}}, "unknown type 'softmax-topx'; did you mean 'softmax-topk'?"),
        ({"expert": {"intermediate_size": 0}}, "blocks.X.mlp.expert.intermediate_size: got 0; expected at least 1"),
        ({"expert": {"intermediate": 3}}, "blocks.X.mlp.expert.intermediate: unknown field 'intermediate'; did you"),
        ({"balance_loss": -1}, "blocks.X.mlp.balance_loss: got -1; expected at least 0"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        tiny_spec({"X": {"attention": attention(None, GLOBAL), "mlp": moe_fields(**change)}})
    assert message in str(error.value)


def test_what_an_expert_is_counts_in_the_hash() -> None:
    def hashed(routing: str = "normalised", /, **fields: Any) -> str:
        return tiny_spec({"X": {"attention": attention(None, GLOBAL), "mlp": moe_fields(routing, **fields)}}).hash

    full = {"type": "swiglu", "intermediate_size": 4, "bias": True}
    assert hashed(expert=full) == hashed() == hashed(expert={"intermediate_size": 4, "bias": True})
    narrow = {**full, "bias": False}
    others = [hashed(expert=narrow), hashed(shared=full), hashed(router_bias=True), hashed("topk-softmax")]
    assert len({hashed(), *others}) == 5
