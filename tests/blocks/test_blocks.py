"""Blocks one by one: norm, MLP, attention's spec, caches, initialisation, registries, and the decoder's errors."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from helpers import GLOBAL, LOCAL, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin.blocks import Cache, Decoder, LayerCache, Registry, RMSNormSpec, SwiGLUSpec
from miniwin.blocks import tiling as pieces_module
from miniwin.blocks.cache import GrowingCache, RingCache
from miniwin.blocks.messages.nearest import near
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import Strict
from miniwin.specs import ModelSpec, UserError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- RMSNorm and SwiGLU against naive restatements


@pytest.mark.parametrize(("size", "eps"), [(1, 1e-6), (7, 1e-6), (64, 1e-2)])
def test_rmsnorm_equals_its_equation_gradients_too(size: int, eps: float) -> None:
    norm = RMSNormSpec(eps=eps).build(size)
    with torch.no_grad():
        norm.weight.copy_(draw(size, seed=3))
    x, weight = draw(2, 5, size).requires_grad_(), draw(2, 5, size, seed=1)
    y = norm(x)
    a, gain = x.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    want = torch.stack([row / math.sqrt(float((row**2).sum() / size + eps)) for row in a.detach().view(-1, size)])
    assert largest(y.view(-1, size), want * gain.detach()) < 1e-6
    expected = a / (a.square().mean(-1, keepdim=True) + eps).sqrt() * gain
    grads = torch.autograd.grad(expected, (a, gain), weight.double())
    for got, wanted in zip(torch.autograd.grad(y, (x, norm.weight), weight), grads, strict=True):
        assert largest(got, wanted) < 1e-5


def test_rmsnorm_computes_in_float32_and_answers_in_the_inputs_dtype() -> None:
    norm = RMSNormSpec().build(64)
    x = (300 * draw(3, 64)).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), norm(x.float()).bfloat16())
    assert (norm(torch.zeros(1, 64)) == 0).all()
    with torch.autocast("cpu", torch.bfloat16):  # a matrix product reads the result, and would round it anyway
        assert torch.equal(norm(x.float()), norm(x)) and norm(x.float()).dtype == torch.bfloat16


@pytest.mark.parametrize("block", ["norm", "mlp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_in_pieces_are_rows(block: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows are cut into pieces, the last one shorter: results and gradients are those of each row by itself."""
    monkeypatch.setattr(pieces_module, "WIDE", 200)
    monkeypatch.setattr(pieces_module.pieces, "__defaults__", (200,))
    module = (RMSNormSpec() if block == "norm" else SwiGLUSpec(intermediate_size=16)).build(24).to(dtype)
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=i) / 4)
    # Not contiguous, as the rows of a transposed tensor are not.
    x = draw(7, 3, 24).to(dtype).transpose(0, 1).requires_grad_()
    upstream = draw(3, 7, 24, seed=9).to(dtype)
    leaves = [x, *module.parameters()]
    whole, grads = module(x), torch.autograd.grad(module(x), leaves, upstream)
    alone = torch.stack([torch.stack([module(token) for token in row]) for row in x])
    wanted = torch.autograd.grad(alone, leaves, upstream)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    with torch.no_grad():
        assert largest(module(x), whole) < tolerance
    for got, expected in zip((whole, *grads), (alone, *wanted), strict=True):
        assert got.dtype == dtype and largest(got, expected) < tolerance * float(expected.detach().abs().max())


def test_swiglu_equals_its_equation_gradients_too() -> None:
    mlp = SwiGLUSpec(intermediate_size=11).build(6)
    assert {name: tuple(p.shape) for name, p in mlp.named_parameters()} == {
        "gate_proj.weight": (11, 6),
        "up_proj.weight": (11, 6),
        "down_proj.weight": (6, 11),
    }
    x, weight = draw(2, 5, 6).requires_grad_(), draw(2, 5, 6, seed=1)
    leaves = [x, *mlp.parameters()]
    a, gate, up, down = (t.detach().double().requires_grad_() for t in leaves)
    g = a @ gate.T
    want = (g / (1 + torch.exp(-g)) * (a @ up.T)) @ down.T
    assert largest(mlp(x), want) < 1e-6
    grads = torch.autograd.grad(want, (a, gate, up, down), weight.double())
    for got, wanted in zip(torch.autograd.grad(mlp(x), leaves, weight), grads, strict=True):
        assert largest(got, wanted) < 1e-5


# ---- Caches


def tokens(count: int, first: int = 0, batch: int = 2) -> Tensor:
    """(batch, count, 1, 2), whose numbers say the row and the token."""
    index = torch.arange(first, first + count, dtype=torch.float32).view(1, -1, 1, 1)
    return (index + 1000 * torch.arange(batch).view(-1, 1, 1, 1)).expand(batch, count, 1, 2).clone()


def held(values: Tensor) -> list[int]:
    assert torch.equal(values[1, :, 0, 0], values[0, :, 0, 0] + 1000)
    return [int(v) for v in values[0, :, 0, 0]]


@pytest.mark.parametrize("window", [1, 2, 5, 8])
@pytest.mark.parametrize("sizes", [(1,) * 20, (3,) * 6, (7, 1, 1, 12), (20,), (4, 9, 2, 5), (5, 5, 5), (8, 8)])
def test_a_ring_gives_back_what_the_new_queries_see(window: int, sizes: tuple[int, ...]) -> None:
    ring = RingCache(window, [torch.zeros(2, 0, 1, 2)] * 2)
    done = 0
    for size in sizes:
        k = tokens(size, done)
        keys, values = ring.append(k, -k)
        done += size
        # The first new query sees window - 1 keys before its own, if there are so many; in order of time.
        assert held(keys) == list(range(max(0, done - size - window + 1), done))
        assert torch.equal(values, -keys)
        assert (ring.length, ring.entries) == (done, min(done, window))
        assert ring.stored[0].shape == (2, window, 1, 2)  # however long the context
        assert ring.nbytes == 2 * 2 * ring.entries * 2 * 4


@pytest.mark.parametrize("sizes", [(1,) * 300, (255, 1, 1), (256, 1), (700,), (100, 300, 400, 1)])
def test_a_growing_cache_keeps_everything_in_order(sizes: tuple[int, ...]) -> None:
    cache = GrowingCache([torch.zeros(2, 0, 1, 2)] * 2)
    done = grown = 0
    for size in sizes:
        before = cache.stored[0].shape[1]
        keys, values = cache.append(tokens(size, done), -tokens(size, done))
        done += size
        grown += cache.stored[0].shape[1] != before
    assert held(keys) == list(range(done)) and torch.equal(values, -keys)
    assert cache.nbytes == 2 * 2 * done * 2 * 4
    assert grown <= 4, "storage is preallocated: it grows by half at a time"


@pytest.mark.parametrize("make", [lambda e: RingCache(4, e), GrowingCache], ids=["ring", "growing"])
def test_a_cloned_layer_cache_is_independent(make: Any) -> None:
    cache: LayerCache = make([torch.zeros(2, 0, 1, 2)] * 2)
    cache.append(tokens(6), tokens(6))
    other = cache.clone()
    cache.append(tokens(2, 50), tokens(2, 50))
    assert (cache.length, other.length) == (8, 6)
    keys, _ = other.append(tokens(1, 6), tokens(1, 6))
    assert held(keys)[-4:] == [3, 4, 5, 6]
    keys, _ = cache.append(tokens(1, 52), tokens(1, 52))
    assert held(keys)[-4:] == [5, 50, 51, 52]


def model(**fields: Any) -> tuple[ModelSpec, Decoder]:
    spec = tiny_spec(**fields)
    return spec, enliven(spec.build()).eval()


@torch.no_grad()
def test_a_cache_says_its_length_and_bytes_and_copies_its_padding() -> None:
    spec, decoder = model()
    ids = random_ids(spec, 2, 12)
    cache = decoder.new_cache(batch_size=2)
    assert (cache.length, cache.nbytes, cache.batch_size) == (0, 0, 2)
    mask = torch.tensor([[0] * 5 + [1] * 5, [1] * 10])
    decoder(ids[:, :10], cache=cache, attention_mask=mask)
    assert cache.length == 10 and cache.nbytes == 2 * spec.cache_bytes(10)
    branch = cache.clone()
    first, second = (decoder(ids[:, 10:], cache=c) for c in (cache, branch))
    assert torch.equal(first, second) and branch.length == 12
    alone = decoder(ids[:1, 5:])
    assert largest(first[0], alone[0, 5:]) < 1e-5


@torch.no_grad()
def test_a_cache_resets_to_empty() -> None:
    spec, decoder = model()
    ids = random_ids(spec, 1, 20)
    cache = decoder.new_cache()
    decoder(ids, cache=cache, attention_mask=torch.tensor([[0] * 3 + [1] * 17]))
    cache.reset()
    assert (cache.length, cache.nbytes) == (0, 0)
    assert largest(decoder(ids, cache=cache), decoder(ids)) < 1e-5


@torch.no_grad()
def test_a_bfloat16_cache_halves_the_bytes_and_stays_close() -> None:
    spec, decoder = model()
    ids = random_ids(spec, 1, 40)
    full, half = decoder.new_cache(), decoder.new_cache(dtype=torch.bfloat16)
    logits = [torch.cat([decoder(ids[:, t : t + 1], cache=c) for t in range(40)], 1) for c in (full, half)]
    assert full.nbytes == 2 * half.nbytes == spec.cache_bytes(40)
    assert logits[1].dtype == torch.float32
    assert 0 < largest(*logits) < 0.5


def test_training_through_a_cache_gives_the_new_tokens_their_gradients() -> None:
    """Stored entries are detached; the entries of the call itself are not."""
    spec, decoder = model()
    ids = random_ids(spec, 1, 20)

    def gradients(cache: Cache | None) -> list[Tensor]:
        loss = torch.nn.functional.cross_entropy(decoder(ids[:, :-1], cache=cache)[0], ids[0, 1:])
        return list(torch.autograd.grad(loss, list(decoder.parameters())))

    for got, want in zip(gradients(decoder.new_cache()), gradients(None), strict=True):
        assert largest(got, want) < 1e-5


# ---- Decoder


@torch.no_grad()
@pytest.mark.parametrize("tie", [True, False])
def test_head_and_logits_to_keep(tie: bool) -> None:
    spec, decoder = model(tie_word_embeddings=tie)
    assert (decoder.lm_head is None) == tie
    ids = random_ids(spec, 2, 9)
    logits = decoder(ids)
    assert logits.shape == (2, 9, spec.vocab_size) and logits.dtype == torch.float32
    head = decoder.embed_tokens if tie else decoder.lm_head
    assert largest(logits, decoder.hidden(ids) @ head.weight.T) < 1e-5
    for keep in (1, 4, 9, 50):
        assert largest(decoder(ids, logits_to_keep=keep), logits[:, -keep:]) < 1e-5
    assert largest(decoder(ids.int()), logits) == 0


@torch.no_grad()
def test_half_precision_weights_give_float32_logits() -> None:
    spec, decoder = model()
    ids = random_ids(spec, 1, 40)
    logits = decoder(ids)
    decoder.to(torch.bfloat16)
    half = decoder(ids)
    assert half.dtype == torch.float32
    assert largest(half, logits) < 0.1 * float(logits.abs().max())
    cache = decoder.new_cache()
    assert cache.layers[0].stored[0].dtype == torch.bfloat16
    assert largest(torch.cat([decoder(ids[:, t : t + 1], cache=cache) for t in range(40)], 1), half) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": torch.zeros(5, dtype=torch.int64)}, "got shape (5,) of torch.int64; expected integers"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "with at least one token"),
        ({"input_ids": torch.zeros(1, 5)}, "(1, 5) of torch.float32; expected integers of shape (batch, tokens)"),
        ({"input_ids": torch.zeros(1, 5, dtype=torch.bool)}, "got shape (1, 5) of torch.bool; expected integers"),
        ({"input_ids": torch.full((1, 5), 61)}, "61"),
        ({"input_ids": torch.full((1, 5), -1)}, "-1"),
        ({"attention_mask": torch.ones(1, 4)}, "attention_mask: got shape (1, 4); expected that of input_ids, (2, 5)"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * 2)}, "padding (0) may only stand to the left"),
        ({"attention_mask": torch.tensor([[1, 0, 1, 1, 1]] * 2)}, "padding (0) may only stand to the left"),
        ({"logits_to_keep": -3}, "logits_to_keep: got -3"),
    ],
)
def test_calls_that_cannot_be_answered_say_why(arguments: dict[str, Any], message: str) -> None:
    _, decoder = model()
    with pytest.raises(UserError) as error:
        decoder(**{"input_ids": torch.zeros(2, 5, dtype=torch.int64), **arguments})
    assert message in str(error.value)


@torch.no_grad()
def test_a_cache_refuses_another_batch_and_late_padding() -> None:
    spec, decoder = model()
    cache = decoder.new_cache(batch_size=2)
    with pytest.raises(UserError, match=r"got a batch of 3; the cache holds 2 rows\. Make one with model\.new_cache"):
        decoder(random_ids(spec, 3, 5), cache=cache)
    ids = random_ids(spec, 2, 5)
    decoder(ids, cache=cache)
    with pytest.raises(UserError, match="a row that already holds tokens gets padding"):
        decoder(ids, cache=cache, attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1] * 5]))
    assert cache.length == 5  # refused calls leave the cache as it was
    decoder(ids, cache=cache, attention_mask=torch.ones(2, 5))  # a mask of ones has no effect
    assert cache.length == 10


@torch.no_grad()
def test_a_call_that_failed_halfway_does_not_leave_a_cache_that_answers_wrongly() -> None:
    spec, decoder = model()
    ids = random_ids(spec, 1, 30)
    cache = decoder.new_cache()
    decoder(ids[:, :20], cache=cache)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = decoder.layers[2].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        decoder(ids[:, 20:25], cache=cache)
    handle.remove()
    try:
        logits = decoder(ids[:, 20:], cache=cache)
    except UserError as error:
        assert "cache" in str(error)
    else:
        assert largest(logits, decoder(ids)[:, 20:]) < 1e-4


# ---- Initialisation


def test_initialisation_draws_normals_and_shrinks_what_writes_into_the_residual_stream() -> None:
    wide = {"X": {"attention": attention(7, LOCAL, head_dim=32), "mlp": {"intermediate_size": 256}}}
    spec = tiny_spec(wide, hidden_size=128, num_layers=8, pattern="X", init={"std": 0.05}, tie_word_embeddings=False)
    torch.manual_seed(0)
    for name, parameter in spec.build().state_dict().items():
        if parameter.dim() == 1:
            assert (parameter == 1).all(), name
            continue
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        assert float(parameter.std()) == pytest.approx(0.05 / 4 if writes else 0.05, rel=0.05), name
        assert abs(float(parameter.mean())) < 0.002, name
    flat = tiny_spec(wide, hidden_size=128, num_layers=8, pattern="X", init={"std": 0.05, "depth_scaled": False})
    assert float(flat.build().layers[3].attention.o_proj.weight.detach().std()) == pytest.approx(0.05, rel=0.05)


def test_initialisation_by_fan_in_and_of_embeddings_alone() -> None:
    wide = {"X": {"attention": attention(7, LOCAL, head_dim=32), "mlp": {"intermediate_size": 512}}}
    init = {"type": "fan-in", "std": 0.7, "depth_scaled": False, "embedding_std": 1.5}
    spec = tiny_spec(wide, hidden_size=128, num_layers=2, pattern="X", init=init, tie_word_embeddings=False)
    torch.manual_seed(0)
    decoder = spec.build()
    for name, module in decoder.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.7 / module.in_features**0.5, rel=0.05), name
    assert float(decoder.embed_tokens.weight.detach().std()) == pytest.approx(1.5, rel=0.05)
    assert spec.hash != tiny_spec(wide, hidden_size=128, num_layers=2, pattern="X", tie_word_embeddings=False).hash


def test_a_fresh_model_is_nearly_uniform() -> None:
    spec = tiny_spec()
    torch.manual_seed(0)
    ids = random_ids(spec, 2, 50)
    loss = torch.nn.functional.cross_entropy(spec.build()(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(math.log(spec.vocab_size), rel=0.05)


# ---- Attention spec


def test_heads_that_do_not_fit_are_refused() -> None:
    def refusal(block: dict[str, Any]) -> str:
        with pytest.raises(UserError) as error:
            tiny_spec({"X": block})
        return str(error.value)

    shared = refusal(attention(None, GLOBAL, num_kv_heads=3))
    assert "blocks.X.attention.num_kv_heads: got 3; it must divide num_heads 4" in shared
    odd = refusal(attention(None, GLOBAL, num_heads=5, num_kv_heads=1))
    assert "blocks.X.attention.num_heads: got 5; it must divide hidden_size 32, or give head_dim explicitly" in odd
    assert "blocks.X.attention.window: got 0" in refusal(attention(0, GLOBAL))
    assert "unknown type 'ropes'; did you mean 'rope'?" in refusal(attention(7, {"type": "ropes"}))


def test_defaults_are_filled_in_and_do_not_change_the_hash() -> None:
    short = tiny_spec({"X": {"num_heads": 4, "position": GLOBAL}})
    resolved: Any = short.layer_specs[0].attention
    assert (resolved.num_kv_heads, resolved.head_dim, resolved.window) == (4, 8, None)
    scale = {"type": "nope", "logit_scale": {"type": "log", "init": 0.2}}
    full = {"type": "softmax", "num_heads": 4, "num_kv_heads": 4, "head_dim": 8, "window": None, "position": scale}
    assert tiny_spec({"Q": full}, name="other").hash == short.hash
    assert tiny_spec({"Q": {**full, "window": 9}}).hash != short.hash


def test_qk_norm_acts_before_the_rotation_and_on_each_head() -> None:
    """Scaling a head's queries and keys changes nothing with a norm, and changes the logits without one."""
    for qk_norm, same in (({"type": "rmsnorm"}, True), (None, False)):
        spec = tiny_spec({"X": attention(9, LOCAL, qk_norm=qk_norm)})
        decoder = enliven(spec.build()).eval()
        ids = random_ids(spec, 1, 20)
        with torch.no_grad():
            before = decoder(ids)
            for layer in decoder.layers:
                layer.attention.q_proj.weight[8:16] *= 3  # the second head
                layer.attention.k_proj.weight[:8] *= 2
            assert (largest(decoder(ids), before) < 1e-3) == same


# ---- Registries


def test_a_registry_refuses_a_second_block_of_the_same_name() -> None:
    registry = Registry("thing")

    @registry.register
    class First(Strict):
        type: Literal["one"] = "one"

    class Second(Strict):
        type: Literal["one"] = "one"

    with pytest.raises(ValueError, match=r"thing 'one' is registered twice: .*First.*Second"):
        registry.register(Second)
    assert registry.names() == ["one"] and list(registry) == [First] and registry["one"] is First


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown position 'p-rop': did you mean 'p-rope'\?"):
        POSITIONS["p-rop"]
    with pytest.raises(UserError, match="unknown position 'xyz': known: alibi, forgetting, "):
        POSITIONS["xyz"]
    assert near("alibbi", ["alibi", "rope"]) == "did you mean 'alibi'?"


def test_the_folder_says_under_which_name_to_import_it() -> None:
    import runpy

    import miniwin.blocks

    with pytest.raises(ImportError, match=r"this folder is the package miniwin\.blocks"):
        runpy.run_path(str(miniwin.blocks.__file__), run_name="blocks")
