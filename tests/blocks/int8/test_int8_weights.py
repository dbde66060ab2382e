"""int8 weights: the products, what stays exact, and how little they add to a model's loss."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import enliven, largest, random_ids, tiny_spec
from tiny import run_cli
from torch.nn import functional as F

import miniwin
from miniwin.blocks import native
from miniwin.blocks.int8.weight import FEW, Int8Weight
from miniwin.language_model import LanguageModel
from miniwin.quantize import quantize
from miniwin.specs import ModelSpec, UserError

EXPERTS = {
    "type": "moe",
    "num_experts": 4,
    "experts_per_token": 2,
    "expert": {"intermediate_size": 24},
    "router": {"type": "softmax-topk"},
}


def made(model_spec: ModelSpec) -> LanguageModel:
    model = miniwin.build(model_spec, seed=0).eval()
    enliven(model.decoder)
    return model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 7), (33, 20), (61, 32)])
def test_a_product_is_that_of_the_rounded_matrix(rows: int, bias: bool, shape: tuple[int, int]) -> None:
    weight = draw(*shape) * torch.logspace(-3, 3, shape[0]).unsqueeze(1)
    weight[0, 0] = weight.abs().amax()
    b = draw(shape[0], seed=2) if bias else None
    int8 = Int8Weight.of(weight)
    # Half a scale; a scale rounded down leaves the largest number of its row outside, by one part in 2^8.
    half = int8.scale[: shape[0]].float().unsqueeze(1) * 0.502 + weight.abs() * 2**-8
    assert bool(((int8.wide() - weight).abs() <= half).all())
    x = draw(rows, 1, shape[1], seed=1)
    expected = F.linear(x, int8.wide(), b)
    spread = F.linear(x.abs(), int8.wide().abs())  # the scale of rounding errors in activations and results
    got = F.linear(x, int8, b)
    assert got.shape == expected.shape and type(got) is torch.Tensor and got.dtype == x.dtype
    # Torch's kernel, where ours is missing, rounds activations and results to bfloat16.
    rounds = rows <= FEW and native.missing() is not None
    assert bool(((got - expected).abs() <= spread * (2**-6 if rounds else 1e-6) + 1e-6).all())


def test_the_memory_of_a_file_is_copied() -> None:
    """A file is mapped at any address, and torch's kernel takes some only."""
    for shape in ((32, 64), (33, 20)):
        room = torch.zeros(shape[0] * shape[1] + 1, dtype=torch.int8)
        values = room[1:].view(shape)
        made = Int8Weight.stored(values, torch.ones(shape[0], dtype=torch.bfloat16), torch.float32)
        assert made.values8.data_ptr() % 64 == made.scale.data_ptr() % 64 == 0
        values.fill_(1)
        assert not made.wide().any()


@pytest.mark.parametrize("rows", [1, 3, 4, 5, FEW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_our_kernel_rounds_nothing_but_the_matrix(rows: int, dtype: torch.dtype, build: str) -> None:
    for shape in ((1, 7), (61, 32), (130, 1000)):
        int8, x = Int8Weight.of(draw(*shape)), draw(rows, shape[1], seed=1).to(dtype)
        expected = F.linear(x.double(), int8.wide().double())
        got = F.linear(x, int8)
        assert got.dtype == dtype
        spread = F.linear(x.double().abs(), int8.wide().double().abs())
        assert bool(((got.double() - expected).abs() <= spread * (1e-6 if dtype == torch.float32 else 2**-8)).all())


def test_without_our_kernel_torch_multiplies() -> None:
    int8, x = Int8Weight.of(draw(33, 20)), draw(2, 20, seed=1)
    with native.without():
        assert 0 < largest(F.linear(x, int8), F.linear(x, int8.wide())) < 0.1


def test_a_row_of_zeros_stays_zeros() -> None:
    weight = draw(5, 16)
    weight[2] = 0
    assert not Int8Weight.of(weight).wide()[2].any()
    assert not F.linear(draw(1, 16), Int8Weight.of(weight))[0, 2]


@pytest.mark.parametrize("tie", [True, False])
@torch.no_grad()
def test_a_quantised_model_prefills_and_decodes_close_to_its_own(tie: bool) -> None:
    model_spec = tiny_spec(tie_word_embeddings=tie)
    model, ids = made(model_spec), random_ids(model_spec, 2, 40)
    exact = model(ids)
    assert quantize(model) is model
    cache = model.new_cache(2)
    decoded = torch.cat([model(ids[:, t : t + 1], cache=cache) for t in range(40)], 1)
    for logits in (model(ids), decoded):
        assert 1e-4 < largest(logits, exact) < 0.1 * exact.std()
    head = model.decoder.lm_head
    assert isinstance(model.decoder.embed_tokens.weight, Int8Weight) and (head is None) == tie
    assert not any(p.requires_grad for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == model_spec.parameters()
    quantize(model)  # a second call changes nothing
    assert torch.equal(model(ids), model(ids))


@torch.no_grad()
def test_routers_and_norms_stay_exact() -> None:
    layer = {"attention": {"num_heads": 4, "position": {"type": "rope"}}, "mlp": EXPERTS}
    model = quantize(made(tiny_spec({"X": layer})))
    kinds = {name: isinstance(p, Int8Weight) for name, p in model.decoder.named_parameters()}
    for name, int8 in kinds.items():
        assert int8 == ("router" not in name and "norm" not in name), name
    assert model(random_ids(model.spec, 1, 9)).isfinite().all()


def test_generation_works_on_int8_weights() -> None:
    model = quantize(made(tiny_spec()))
    assert len(model.generate([1, 2, 3], max_new_tokens=9, seed=0, cache_dtype="int8")) == 9


def test_what_would_write_into_a_matrix_is_refused() -> None:
    """The write would go into a copy, and be lost."""
    model = quantize(made(tiny_spec()))
    weight = model.decoder.layers[0].mlp.down_proj.weight
    before = weight.wide()
    for write in (weight.zero_, lambda: weight.data.copy_(before), lambda: torch.add(before, 1, out=weight)):
        with torch.no_grad(), pytest.raises(TypeError, match="in eight bits to write into; change or load weights"):
            write()
    with pytest.raises(RuntimeError, match="in eight bits to write into"):
        model.load_state_dict(made(tiny_spec()).state_dict())
    assert torch.equal(weight.wide(), before)


def test_a_model_can_be_copied_and_shared() -> None:
    model, ids = quantize(made(tiny_spec())), random_ids(tiny_spec(), 1, 9)
    other = copy.deepcopy(model).share_memory()
    weight = other.decoder.layers[0].mlp.down_proj.weight
    assert isinstance(weight, Int8Weight) and weight.values8.is_shared() and weight.scale.is_shared()
    assert weight.values8.data_ptr() != model.decoder.layers[0].mlp.down_proj.weight.values8.data_ptr()
    with torch.no_grad():
        assert torch.equal(other(ids), model(ids))


@pytest.mark.parametrize("rows", [3, FEW + 1])
def test_gradients_of_what_comes_in_are_not_lost(rows: int) -> None:
    weight, x = Int8Weight.of(draw(33, 20)), draw(rows, 20, seed=1).requires_grad_()
    (got,) = torch.autograd.grad(F.linear(x, weight).square().sum(), x)
    (want,) = torch.autograd.grad(F.linear(x, weight.wide()).square().sum(), x)
    assert largest(got, want) < 1e-4


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="quantize: got 'int4'; expected int8"):
        quantize(made(tiny_spec()), "int4")
    with pytest.raises(UserError, match="quantize: got a model on meta; int8 weights are for a CPU"):
        quantize(made(tiny_spec()).to("meta"))


def test_the_shipped_model_loses_little_as_the_command_measures_it() -> None:
    """Bits per byte of the shipped entry, before and after."""
    import json

    found = []
    for extra in ([], ["--quantize", "int8"]):
        code, out, _ = run_cli(
            "eval", "miniwin-1m", "--lengths", "512", "--tokens", "2048", "--no-recall", "--no-speed", "-q",
            "--json", "-", *extra,
        )  # fmt: skip
        assert code == 0
        found.append(json.loads(out)["bits_per_byte"]["512"])
    assert found[0] != found[1] and abs(found[1] - found[0]) < 0.01
