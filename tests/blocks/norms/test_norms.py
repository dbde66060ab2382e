"""Norms: against their equations in float64, gradients too, and against transformers' modules with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float64 import all_float64, assert_as_near, assert_exact, doubled
from helpers import largest
from torch import Tensor, nn
from transformers.models.cohere2.modeling_cohere2 import Cohere2LayerNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.llama4.modeling_llama4 import Llama4TextL2Norm

from miniwin.blocks import NORMS
from miniwin.blocks.norms.layernorm import LayerNormSpec
from miniwin.blocks.norms.rmsnorm import RMSNorm, RMSNormSpec
from miniwin.blocks.spec import facts

SIZE = 24

CASES: dict[str, Any] = {
    "rmsnorm": RMSNormSpec(eps=1e-3),
    "rmsnorm-one-plus": RMSNormSpec(eps=1e-3, gain="one-plus"),
    "rmsnorm-none": RMSNormSpec(eps=1e-3, gain="none"),
    "layernorm": LayerNormSpec(eps=1e-3),
    "layernorm-bias": LayerNormSpec(eps=1e-3, bias=True),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stirred(module: nn.Module, seed: int = 5) -> nn.Module:
    """The same module with weights of its own."""
    for i, parameter in enumerate(module.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed + i))
    return module


def written_out(name: str, x: Tensor, weights: dict[str, Tensor], eps: float = 1e-3) -> Tensor:
    """The equations, in the dtype of x."""
    if name.startswith("layernorm"):
        centred = x - x.sum(-1, keepdim=True) / SIZE
        y = centred / ((centred**2).sum(-1, keepdim=True) / SIZE + eps) ** 0.5 * weights["weight"]
        return y + weights["bias"] if name.endswith("bias") else y
    unit = x / ((x**2).sum(-1, keepdim=True) / SIZE + eps) ** 0.5
    if name.endswith("none"):
        return unit
    return unit * (1 + weights["weight"]) if name.endswith("one-plus") else unit * weights["weight"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_equal_their_equations_gradients_too(name: str, dtype: torch.dtype) -> None:
    norm = stirred(CASES[name].build(SIZE)).to(dtype)
    x = (2 * draw(3, 5, SIZE) + 1).to(dtype).requires_grad_()  # a mean that is not zero: LayerNorm takes it away
    cotangent = draw(3, 5, SIZE, seed=1).to(dtype)
    a = x.detach().double().requires_grad_()
    weights = {key: value.detach().double().requires_grad_() for key, value in norm.named_parameters()}
    y, want = norm(x), written_out(name, a, weights)
    tight = 1e-5 if dtype == torch.float32 else 1e-13
    assert y.dtype == dtype and largest(y, want) < tight
    got = torch.autograd.grad(y, [x, *norm.parameters()], cotangent)
    expected = torch.autograd.grad(want, [a, *weights.values()], cotangent.double())
    for one, other in zip(got, expected, strict=True):
        assert largest(one, other) < 10 * tight


@pytest.mark.parametrize("name", CASES)
def test_norms_compute_in_float32_and_round_once(name: str) -> None:
    norm = stirred(CASES[name].build(SIZE)).bfloat16()
    x = (300 * draw(7, SIZE)).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    wide = CASES[name].build(SIZE)
    wide.load_state_dict({key: value.float() for key, value in norm.state_dict().items()})
    assert torch.equal(norm(x), wide(x.float()).bfloat16())


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_norm_only_normalises_and_costs_what_its_spec_says(name: str) -> None:
    spec = CASES[name]
    norm = spec.build(SIZE)
    x = draw(4, SIZE)
    plain = written_out("layernorm" if name.startswith("layer") else "rmsnorm-none", x, {"weight": torch.ones(SIZE)})
    assert largest(norm(x), plain) < 1e-5
    assert sum(p.numel() for p in norm.parameters()) == spec.parameters(SIZE)
    expected = {"rmsnorm-none": [], "layernorm-bias": ["weight", "bias"]}.get(name, ["weight"])
    assert list(norm.state_dict()) == expected


@pytest.mark.parametrize("gain", ["plain", "none"])
def test_rmsnorm_refuses_other_channels_and_takes_any_autocast(gain: Any) -> None:
    norm = RMSNorm(32, 1e-5, gain)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(ValueError, match="got 64 channels; expected 32"):
            norm(torch.randn(4, 64))
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.float16):
            assert norm(torch.randn(4, 32)).dtype == torch.float16


def test_every_registered_norm_is_tested_here() -> None:
    assert {spec.type for spec in CASES.values()} == set(NORMS.names())


THEIRS: list[tuple[Any, Any]] = [
    (RMSNormSpec(eps=1e-6), LlamaRMSNorm(SIZE, eps=1e-6)),
    (RMSNormSpec(eps=1e-5), GptOssRMSNorm(SIZE, eps=1e-5)),
    (RMSNormSpec(eps=1e-6, gain="one-plus"), Gemma2RMSNorm(SIZE, eps=1e-6)),
    (RMSNormSpec(eps=1e-5, gain="none"), Llama4TextL2Norm(eps=1e-5)),
    (LayerNormSpec(eps=1e-5), Cohere2LayerNorm(SIZE, eps=1e-5)),
    (LayerNormSpec(eps=1e-5, bias=True), nn.LayerNorm(SIZE, eps=1e-5)),  # what GPT-NeoX uses
]


@pytest.mark.parametrize(("spec", "theirs"), THEIRS, ids=lambda v: type(v).__name__)
@torch.no_grad()
def test_norms_equal_transformers(spec: Any, theirs: nn.Module) -> None:
    stirred(theirs)
    ours = spec.build(SIZE)
    ours.load_state_dict(theirs.state_dict())
    for seed in range(3):
        x = 3 * draw(2, 9, SIZE, seed=10 + seed) + 0.5
        with all_float64():
            exact = doubled(theirs)(x.double())
        assert_exact(doubled(ours)(x.double()), exact, 1e-12)
        assert_as_near(ours(x), theirs(x), exact)
    assert not torch.allclose(ours(x), x, atol=0.1)


@torch.no_grad()
def test_in_bfloat16_llamas_differs_by_its_earlier_rounding_and_gemmas_not_at_all() -> None:
    x = draw(50, SIZE).bfloat16()
    for spec, theirs, exact in (
        (RMSNormSpec(gain="one-plus"), Gemma2RMSNorm(SIZE), True),
        (RMSNormSpec(), GptOssRMSNorm(SIZE), True),
        (RMSNormSpec(), LlamaRMSNorm(SIZE), False),
    ):
        ours, reference = spec.build(SIZE).bfloat16(), stirred(theirs).bfloat16()
        ours.load_state_dict(reference.state_dict())
        y, want = ours(x), reference(x)
        assert torch.equal(y, want) == exact
        assert largest(y, want) <= 2 * 2**-8 * float(want.abs().max())


def test_a_gain_left_at_its_default_does_not_change_what_older_specs_hash_to() -> None:
    assert facts(RMSNormSpec()) == {"type": "rmsnorm", "eps": 1e-6}
    assert facts(RMSNormSpec(gain="one-plus")) == {"type": "rmsnorm", "eps": 1e-6, "gain": "one-plus"}
    assert facts(LayerNormSpec()) == {"type": "layernorm", "eps": 1e-5, "bias": False}
