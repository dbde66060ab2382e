"""MLPs: against their equations in float64, gradients too, against transformers' modules, and their costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from float64 import all_float64, assert_as_near, assert_exact, doubled
from helpers import largest
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.gemma2.modeling_gemma2 import Gemma2Config, Gemma2MLP
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXConfig, GPTNeoXMLP
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP
from transformers.models.nanochat.modeling_nanochat import NanoChatConfig, NanoChatMLP

from miniwin.blocks import MLPS
from miniwin.blocks.mlps.clamped_swiglu import ClampedSwiGLUSpec
from miniwin.blocks.mlps.geglu import GeGLUSpec
from miniwin.blocks.mlps.gelu import GELUSpec
from miniwin.blocks.mlps.relu2 import SquaredReLUSpec
from miniwin.blocks.mlps.swiglu import SwiGLUSpec
from miniwin.blocks.spec import facts

HIDDEN, WIDE = 6, 11


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stirred(module: nn.Module, seed: int = 5) -> nn.Module:
    for i, parameter in enumerate(module.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed + i))
    return module


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def gelu_tanh(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def clamped(gate: Tensor, up: Tensor) -> Tensor:
    """Limit 0.5 and alpha 1.7, element by element."""
    gate = torch.where(gate > 0.5, torch.full_like(gate, 0.5), gate)
    up = torch.where(up > 0.5, torch.full_like(up, 0.5), torch.where(up < -0.5, torch.full_like(up, -0.5), up))
    return gate * sigmoid(1.7 * gate) * (up + 1)


# Name -> fields of the spec, and the function between the projections.
GATED: dict[str, tuple[Any, dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "swiglu": (SwiGLUSpec, {}, lambda g, u: g * sigmoid(g) * u),
    "geglu": (GeGLUSpec, {}, lambda g, u: gelu(g) * u),
    "geglu-tanh": (GeGLUSpec, {"approximate": "tanh"}, lambda g, u: gelu_tanh(g) * u),
    "clamped-swiglu": (ClampedSwiGLUSpec, {"limit": 0.5, "alpha": 1.7}, clamped),
}
PLAIN: dict[str, tuple[Any, dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "gelu": (GELUSpec, {}, gelu),
    "gelu-tanh": (GELUSpec, {"approximate": "tanh"}, gelu_tanh),
    "relu2": (SquaredReLUSpec, {}, lambda u: torch.where(u > 0, u, torch.zeros_like(u)) ** 2),
}


def spec_of(name: str, **fields: Any) -> Any:
    cls, own, _ = {**GATED, **PLAIN}[name]
    return cls(intermediate_size=WIDE, **own, **fields)


def projected(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()).double())


def written_out(name: str, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    if name in GATED:
        middle = GATED[name][2](projected(x, weights, "gate_proj"), projected(x, weights, "up_proj"))
    else:
        middle = PLAIN[name][2](projected(x, weights, "up_proj"))
    return projected(middle, weights, "down_proj")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", [*GATED, *PLAIN])
def test_mlps_equal_their_equations_gradients_too(name: str, bias: bool) -> None:
    mlp = stirred(spec_of(name, bias=bias).build(HIDDEN))
    x, cotangent = draw(2, 5, HIDDEN).requires_grad_(), draw(2, 5, HIDDEN, seed=1)
    a = x.detach().double().requires_grad_()
    weights = {key: value.detach().double().requires_grad_() for key, value in mlp.named_parameters()}
    want = written_out(name, a, weights)
    scale = float(want.detach().abs().max())
    assert largest(mlp(x), want) < 2e-6 * scale
    got = torch.autograd.grad(mlp(x), [x, *mlp.parameters()], cotangent)
    expected = torch.autograd.grad(want, [a, *weights.values()], cotangent.double())
    for one, other in zip(got, expected, strict=True):
        assert largest(one, other) < 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", [*GATED, *PLAIN])
def test_names_shapes_and_costs(name: str, bias: bool) -> None:
    spec = spec_of(name, bias=bias)
    with torch.device("meta"):
        mlp = spec.build(HIDDEN)
        assert mlp(torch.empty(2, 3, HIDDEN)).shape == (2, 3, HIDDEN)
    wide = ["gate_proj", "up_proj"] if name in GATED else ["up_proj"]
    shapes: dict[str, tuple[int, ...]] = {f"{key}.weight": (WIDE, HIDDEN) for key in wide}
    shapes["down_proj.weight"] = (HIDDEN, WIDE)
    if bias:
        shapes |= {f"{key}.bias": (WIDE,) for key in wide} | {"down_proj.bias": (HIDDEN,)}
    assert {key: tuple(value.shape) for key, value in mlp.named_parameters()} == shapes
    assert sum(p.numel() for p in mlp.parameters()) == spec.parameters(HIDDEN) == spec.active_parameters(HIDDEN)
    built = spec.build(HIDDEN)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        built(draw(7, HIDDEN))
    assert counter.get_total_flops() == 7 * spec.flops(HIDDEN)


def test_every_registered_mlp_is_tested_here_or_in_its_own_file() -> None:
    assert set(MLPS.names()) == {spec_of(name).type for name in [*GATED, *PLAIN]} | {"moe"}


def test_the_clamps_bound_outliers_and_stop_their_gradient() -> None:
    mlp: Any = ClampedSwiGLUSpec(intermediate_size=WIDE).build(HIDDEN)
    assert (mlp.limit, mlp.alpha) == (7.0, 1.702)
    gate = torch.tensor([1e4, 7.5, 3.0, -1e4]).requires_grad_()
    up = torch.tensor([1e4, -9.0, 3.0, 1e4]).requires_grad_()
    y = mlp.gated(gate, up)
    assert y.tolist() == pytest.approx([7 / (1 + math.exp(-1.702 * 7)) * 8, 7 / (1 + math.exp(-1.702 * 7)) * -6,
                                        3 / (1 + math.exp(-1.702 * 3)) * 4, 0.0], rel=1e-6)  # fmt: skip
    by_gate, by_up = torch.autograd.grad(y.sum(), (gate, up))
    assert by_gate[:2].tolist() == [0, 0] and float(by_gate[2]) > 1  # no lower clamp on the gate: the sigmoid is one
    assert by_up[:2].tolist() == [0, 0] and float(by_up[2]) > 1


RENAMED = {"dense_h_to_4h": "up_proj", "dense_4h_to_h": "down_proj", "fc1": "up_proj", "fc2": "down_proj"}
SIZES = {"hidden_size": HIDDEN, "intermediate_size": WIDE, "num_attention_heads": 1}
THEIRS: dict[str, tuple[Any, Callable[[], nn.Module]]] = {
    "llama": (spec_of("swiglu"), lambda: LlamaMLP(LlamaConfig(**SIZES))),
    "llama-bias": (spec_of("swiglu", bias=True), lambda: LlamaMLP(LlamaConfig(**SIZES, mlp_bias=True))),
    "gemma2": (
        spec_of("geglu-tanh"),
        lambda: Gemma2MLP(Gemma2Config(**SIZES, hidden_activation="gelu_pytorch_tanh")),
    ),
    "gpt-neox": (spec_of("gelu", bias=True), lambda: GPTNeoXMLP(GPTNeoXConfig(**SIZES, hidden_act="gelu"))),
    "nanochat": (spec_of("relu2"), lambda: NanoChatMLP(NanoChatConfig(**SIZES))),
}


@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_mlps_equal_transformers(name: str) -> None:
    spec, make = THEIRS[name]
    ours, theirs = spec.build(HIDDEN), make()
    for seed in range(3):
        stirred(theirs, seed=20 * seed)
        state: dict[str, Tensor] = {}
        for key, value in theirs.state_dict().items():
            child, _, leaf = key.rpartition(".")
            state[f"{RENAMED.get(child, child)}.{leaf}"] = value
        ours.load_state_dict(state)
        x = draw(2, 9, HIDDEN, seed=100 + seed)
        with all_float64():
            exact = doubled(theirs)(x.double())
        assert_exact(doubled(ours)(x.double()), exact, 1e-12)
        assert_as_near(ours(x), theirs(x), exact)


def test_a_bias_left_at_its_default_does_not_change_what_older_specs_hash_to() -> None:
    assert facts(SwiGLUSpec(intermediate_size=5)) == {"type": "swiglu", "intermediate_size": 5}
    assert facts(SwiGLUSpec(intermediate_size=5, bias=True))["bias"] is True
