"""Linear maps by oneDNN: outputs and gradients as near to float64 as torch's own, and when torch's own are used.

tests/miniwin/machine/test_matmul_choice.py tests which one is chosen. Speed does not matter here.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from helpers import enliven, tiny_spec
from torch import Tensor, nn
from torch.nn import functional as F

from miniwin.blocks import Decoder, Router, matmul_library, native
from miniwin.blocks.decode import native_step
from miniwin.blocks.int8.weight import Int8Weight
from miniwin.blocks.matmul_library import MKL, ONEDNN, choose, linear
from miniwin.training.loss import linear_cross_entropy, next_token_loss

pytestmark = pytest.mark.skipif(ONEDNN not in matmul_library.offered(), reason="this torch has no oneDNN here")

NEAR = 3  # times the largest error of torch's own product: both sum in float32, each in its own order
SHAPES = ((37, 161, 193), (8, 419, 331), (64, 128, 512), (301, 8, 501), (129, 523, 17))  # rows, in, out


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the products that oneDNN made: rows, in, out."""
    made: list[tuple[int, ...]] = []
    right = matmul_library._by_onednn

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        made.append((x.shape[:-1].numel(), weight.shape[1], weight.shape[0]))
        return right(x, weight, bias)

    monkeypatch.setattr(matmul_library, "_by_onednn", noted)
    yield made


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def held(found: Tensor, own: Tensor, exact: Tensor) -> None:
    """`found` is as near to `exact` as torch's own."""
    assert found.shape == own.shape == exact.shape and found.dtype == own.dtype
    size = float(exact.abs().max())
    errors = [float((t.double() - exact).abs().max()) for t in (found, own)]
    assert errors[0] <= NEAR * errors[1] + 1e-7 * size, errors


def passed(x: Tensor, weight: Tensor, bias: Tensor | None, g: Tensor, product: str | None) -> list[Tensor]:
    """The output, and the gradients of tensors that require one. product None: torch's own, in float64."""
    given = [t if t is None or product else t.double() for t in (x, weight, bias)]
    leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    assert leaves[0] is not None and leaves[1] is not None
    out = F.linear(*leaves) if product is None else linear(leaves[0], leaves[1], leaves[2], product)  # type: ignore[arg-type]
    out.backward(g.to(out.dtype))
    return [out.detach(), *(t.grad for t in leaves if t is not None and t.grad is not None)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "ins", "outs"), SHAPES)
def test_as_near_to_float64_as_torchs_own(
    rows: int, ins: int, outs: int, bias: bool, calls: list[tuple[int, ...]]
) -> None:
    x, weight, g = drawn(rows, ins), drawn(outs, ins, seed=1), drawn(rows, outs, seed=2)
    added = drawn(outs, seed=3) if bias else None
    found = passed(x, weight, added, g, ONEDNN)
    if rows * ins * outs >= matmul_library.LEAST:
        narrow = min(ins, outs), rows, max(ins, outs)  # the narrower side is the one that is copied
        assert calls == [(rows, ins, outs), (rows, outs, ins), narrow]
    for each in zip(found, passed(x, weight, added, g, MKL), passed(x, weight, added, g, None), strict=True):
        held(*each)


@pytest.mark.parametrize("kind", ["turned", "every other", "repeated", "turned weight", "batch", "weight in strips"])
def test_tensors_with_gaps(kind: str, calls: list[tuple[int, ...]]) -> None:
    x, weight = drawn(48, 160), drawn(192, 160, seed=1)
    if kind == "turned":
        x = drawn(160, 48).t()
    elif kind == "every other":
        x = drawn(96, 320)[::2, ::2]
    elif kind == "repeated":
        x = drawn(1, 160).expand(48, 160)
    elif kind == "turned weight":
        weight = drawn(160, 192, seed=1).t()
    elif kind == "batch":
        x = drawn(6, 2, 8, 160).transpose(1, 2)
    else:
        weight = drawn(192, 320, seed=1)[:, ::2]
    given = [t.clone().as_strided(t.shape, t.stride()) if t.is_contiguous() else t for t in (x, weight)]
    leaves = [t.detach().requires_grad_() for t in given]
    out = linear(leaves[0], leaves[1], None, ONEDNN)
    out.sum().backward()  # the gradient of a sum is one number, repeated
    assert len(calls) == 3
    wide = [t.detach().double().requires_grad_() for t in given]
    own = [t.detach().requires_grad_() for t in given]
    results = []
    for a, b in (wide, own):
        y = F.linear(a, b)
        y.sum().backward()
        results.append([y.detach(), a.grad, b.grad])
    for found, mine, exact in zip([out.detach(), *(t.grad for t in leaves)], results[1], results[0], strict=True):
        assert found is not None and mine is not None and exact is not None
        held(found, mine, exact)


def test_onednn_is_given_nothing_with_gaps() -> None:
    """oneDNN would compute them, but take thousands of times as long."""
    whole = drawn(16, 32)
    for kept in (whole, whole.t(), whole[4:8]):
        assert matmul_library._dense(kept) is kept
    for cut in (whole[:, :16], whole[:, ::2], whole[:, :16].t(), drawn(1, 1).expand(16, 32)):
        assert matmul_library._dense(cut).is_contiguous() and torch.equal(matmul_library._dense(cut), cut)


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)))
def test_gradients_of_any_of_them(wanted: tuple[bool, ...], calls: list[tuple[int, ...]]) -> None:
    made = [drawn(64, 130), drawn(140, 130, seed=1), drawn(140, seed=2)]
    leaves = [t.requires_grad_(want) for t, want in zip(made, wanted, strict=True)]
    out = linear(leaves[0], leaves[1], leaves[2], ONEDNN)
    assert out.requires_grad == any(wanted)
    if any(wanted):
        out.square().sum().backward()
    assert [t.grad is not None for t in leaves] == list(wanted)
    assert len(calls) == 1 + wanted[0] + wanted[1]  # no product whose result is not needed
    with torch.no_grad():
        assert not linear(leaves[0], leaves[1], leaves[2], ONEDNN).requires_grad


def test_what_is_small_or_not_float32_is_torchs_own(calls: list[tuple[int, ...]]) -> None:
    for shape in ((0, 128, 128), (1, 2048, 2048), (7, 1024, 1024), (64, 16, 16), (4096, 512, 1), (4096, 1, 512)):
        x, weight = drawn(shape[0], shape[1]), drawn(shape[2], shape[1], seed=1)
        assert torch.equal(linear(x, weight, None, ONEDNN), F.linear(x, weight))
    x, weight = drawn(64, 256), drawn(256, 256, seed=1)
    for dtype in (torch.float64, torch.bfloat16):
        assert torch.equal(linear(x.to(dtype), weight.to(dtype), None, ONEDNN), F.linear(x.to(dtype), weight.to(dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = linear(x, weight, None, ONEDNN)
        assert narrow.dtype == torch.bfloat16 and torch.equal(narrow, F.linear(x, weight))
    try:
        torch.backends.mkldnn.enabled = False  # by the user
        linear(x, weight, None, ONEDNN)
    finally:
        torch.backends.mkldnn.enabled = True
    assert torch.equal(linear(x, weight, None, MKL), F.linear(x, weight))
    assert not calls
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(x, drawn(256, 255), None, ONEDNN)
    with pytest.raises(RuntimeError, match="dtype"):
        linear(x, weight.double(), None, ONEDNN)


def test_twice_differentiated(calls: list[tuple[int, ...]]) -> None:
    """Gradients of x and W of the sum of squares of the first gradients."""
    found = []
    for product, dtype in ((ONEDNN, torch.float32), (MKL, torch.float32), (MKL, torch.float64)):
        x, weight, bias = (t.to(dtype).requires_grad_() for t in (drawn(40, 170), drawn(180, 170), drawn(180)))
        out = linear(x, weight, bias, product).tanh().sum()
        grads = torch.autograd.grad(out, (x, weight, bias), create_graph=True)
        total = sum((g.square().sum() for g in grads), start=torch.zeros((), dtype=dtype))
        found.append(torch.autograd.grad(total, (x, weight, bias)))
        if product == ONEDNN:
            assert len(calls) > 5
    for each in zip(*found, strict=True):
        held(*each)


def test_transforms_of_torch_func(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = drawn(3, 40, 170), drawn(180, 170, seed=1), drawn(180, seed=2)

    def own(x: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    def ours(x: Tensor) -> Tensor:
        return linear(x, weight, bias, ONEDNN)

    for transform in (
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.func.grad(lambda x: f(x).square().sum())(x),
        lambda f: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
        lambda f: torch.func.vmap(torch.func.grad(lambda x: f(x).square().sum()))(x),
    ):
        assert torch.equal(transform(ours), transform(own))
    assert not calls
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(ours(dual)).tangent
        assert tangent is not None and tangent.shape == (3, 40, 180)
    leaf = x.clone().requires_grad_()
    upstream = drawn(2, 3, 40, 180, seed=4)
    (many,) = torch.autograd.grad(ours(leaf), leaf, upstream, is_grads_batched=True)
    (expected,) = torch.autograd.grad(own(leaf), leaf, upstream, is_grads_batched=True)
    torch.testing.assert_close(many, expected)


def test_compiled_layers_take_torchs_own(calls: list[tuple[int, ...]]) -> None:
    module = nn.Sequential(nn.Linear(256, 256))
    choose(module, ONEDNN)
    x = drawn(64, 256)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), F.linear(x, module[0].weight, module[0].bias))  # type: ignore[arg-type]
    assert not calls
    module(x)
    assert calls


# -- decoders


def decoder(**fields: object) -> Decoder:
    """Large enough that every one of its linear maps goes by oneDNN in 2 x 40 tokens."""
    shape = {"hidden_size": 128, "vocab_size": 320, "num_layers": 2, **fields}
    mlp = {"intermediate_size": 160}
    attention = {"num_heads": 4, "num_kv_heads": 4, "window": 7, "position": {"type": "p-rope", "period": 14}}
    return enliven(tiny_spec({"S": {"attention": attention, "mlp": mlp}}, **shape).build())


def ids_of(model: Decoder) -> Tensor:
    return torch.randint(model.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_and_its_loss(tied: bool, calls: list[tuple[int, ...]]) -> None:
    own = decoder(tie_word_embeddings=tied)
    ours, exact = copy.deepcopy(own), copy.deepcopy(own).double()
    choose(ours, ONEDNN)
    ids = ids_of(own)
    results = []
    for model in (ours, own, exact):
        before = len(calls)
        logits = model(ids)
        if model is ours:
            assert len(calls) - before == 2 * 7 + 1, "seven maps in each layer, and the head"
        loss = next_token_loss(model, model.hidden(ids), ids.roll(-1, 1))
        loss.backward()
        results.append([logits.detach(), loss.detach(), *(p.grad for p in model.parameters())])
        if model is not ours:
            assert len(calls) == before, "a decoder that nobody chose for goes by torch's own"
    assert len(calls) == 2 * 14 + 1 + 3 + 2 * 14, "forward twice, head, the loss's three, backward"
    for found, mine, right in zip(*results, strict=True):
        assert found is not None and mine is not None and right is not None
        held(found, mine, right)


def test_parameters_keep_their_names_and_copies_their_product() -> None:
    model = decoder()
    names, draws = list(model.state_dict()), [t.clone() for t in model.state_dict().values()]
    choose(model, ONEDNN)
    assert list(model.state_dict()) == names
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), draws, strict=True))
    again = copy.deepcopy(model)
    assert again.product == ONEDNN and type(again.attentions[0].q_proj) is matmul_library.Linear
    assert isinstance(again.attentions[0].q_proj, nn.Linear)
    fresh = decoder()
    fresh.load_state_dict(model.state_dict())
    assert fresh.product == MKL and type(fresh.attentions[0].q_proj) is nn.Linear
    choose(model, MKL)
    assert model.product == MKL and type(model.attentions[0].q_proj) is nn.Linear


def test_what_is_more_than_a_linear_map_is_left_alone() -> None:
    class Own(nn.Linear):
        pass

    module = nn.ModuleList([Own(8, 8), nn.Linear(8, 8), Router(8, 8, 2, bias=False)])
    choose(module, ONEDNN)
    assert [type(each) for each in module] == [Own, matmul_library.Linear, Router]


@torch.no_grad()
def test_a_token_is_decoded_in_one_call_all_the_same() -> None:
    model = decoder().eval()
    cache = model.new_cache(1)
    before = native_step.declines(model, cache)
    choose(model, ONEDNN)
    assert native_step.declines(model, cache) == before
    if native.missing() is None:
        assert before is None


def test_weights_in_eight_bits_are_widened_as_for_torchs_own(calls: list[tuple[int, ...]]) -> None:
    weight = Int8Weight.of(drawn(192, 160))
    x, few = drawn(64, 160, seed=1), drawn(9, 160, seed=2)
    with torch.no_grad():
        found = linear(x, weight, None, ONEDNN)
        assert calls == [(64, 160, 192)]
        held(found, F.linear(x, weight.wide()), F.linear(x.double(), weight.wide().double()))
        assert torch.equal(linear(few, weight, None, ONEDNN), F.linear(few, weight)) and len(calls) == 1


@pytest.mark.parametrize("chunk", [None, 48, 100])
@pytest.mark.parametrize(("scale", "cap"), [(None, None), (0.7, None), (0.7, 3.0)])
@pytest.mark.parametrize("kernels", [True, False])
def test_the_loss_of_a_head(
    scale: float | None, cap: float | None, chunk: int | None, kernels: bool, calls: list[tuple[int, ...]]
) -> None:
    targets = torch.randint(320, (130,), generator=torch.Generator().manual_seed(5))
    targets[::7] = -100
    results = []
    for product, dtype in ((ONEDNN, torch.float32), (MKL, torch.float32), (MKL, torch.float64)):
        h, w = (t.to(dtype).requires_grad_() for t in (drawn(130, 128), drawn(320, 128, seed=1)))
        if kernels:
            loss = linear_cross_entropy(h, w, targets, scale, cap, chunk, product)
        else:
            with native.without():
                loss = linear_cross_entropy(h, w, targets, scale, cap, chunk, product)
        loss.backward()
        results.append([loss.detach(), h.grad, w.grad])
    assert len(calls) == 3 * (1 if chunk is None else -(-130 // chunk))
    for found, mine, right in zip(*results, strict=True):
        assert found is not None and mine is not None and right is not None
        held(found, mine, right)
