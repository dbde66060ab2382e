"""A decoding step in one call: the same logits and cache as the model's own step, on every build; what it declines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
import torch
from helpers import enliven, largest, random_ids, tiny_spec
from native_models import HARMONIC, MODELS, ROPE, built, layer
from torch import Tensor

import miniwin
from miniwin.blocks import Decoder, native, use_backend
from miniwin.blocks.cache import Cache
from miniwin.blocks.cache.batching import joined
from miniwin.blocks.cache.rollback import Mark
from miniwin.blocks.decode.native_step import NativeStep, declines
from miniwin.generation import decode_step as ways
from miniwin.generation import generate, generate_batch
from miniwin.language_model import LanguageModel
from miniwin.quantize import quantize
from miniwin.sessions import new_session
from miniwin.specs import UserError


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


BOUNDS = {None: 1e-5, torch.bfloat16: 0.04, torch.int8: 1.0}  # by the dtype of caches: a rounding may go the other way


def warmed(decoder: Decoder, ids: Tensor, tokens: int, dtype: torch.dtype | None = None, padding: int = 0) -> Any:
    """padding: tokens of padding in the last row. The first row has none, rows between have some."""
    cache = decoder.new_cache(len(ids), dtype)
    blank = torch.linspace(0, padding, len(ids)).long().unsqueeze(1)
    decoder(ids[:, :tokens], cache=cache, attention_mask=(torch.arange(tokens) >= blank).long() if padding else None)
    return cache


def compared(decoder: Decoder, ids: Tensor, before: int, dtype: torch.dtype | None = None, padding: int = 0) -> float:
    """The largest difference from the model's logits, over the largest logit. The caches must agree at the end."""
    return followed(decoder, ids[:, before:], warmed(decoder, ids, before, dtype, padding), dtype)


Own = tuple[list[Tensor], Cache]  # the logits of the model's own steps, and the cache that they leave


def own(decoder: Decoder, ids: Tensor, cache: Cache) -> Own:
    cache = cache.clone()
    return [decoder(token, cache=cache) for token in ids.split(1, 1)], cache


def followed(
    decoder: Decoder, ids: Tensor, cache: Cache, dtype: torch.dtype | None = None, steps: Own | None = None
) -> float:
    wanted, end = steps or own(decoder, ids, cache)
    mine = cache.clone()
    assert declines(decoder, mine) is None
    quick, worst = NativeStep(decoder, mine), 0.0
    for token, want in zip(ids.split(1, 1), wanted, strict=True):
        worst = max(worst, largest(quick.step(token), want) / float(want.abs().max()))
    assert mine.length == end.length == cache.length + ids.shape[1]
    for a, b in zip(mine.layers, end.layers, strict=True):
        assert a.length == b.length
        assert a.held().keys() == b.held().keys()
        for name, one in a.held().items():
            assert largest(one.float(), b.held()[name].float()) <= BOUNDS[dtype], name
    return worst


# The builds one after another, so that the model's own steps are computed once for all of them.
each_build = pytest.mark.parametrize("build", list(native.BUILDS), indirect=True)


@lru_cache(maxsize=4)
@torch.no_grad()
def case(name: str, before: int, padding: int = 0) -> tuple[Decoder, Tensor, Cache, Own]:
    """A model, the tokens after those of its cache, the cache, and the model's own steps."""
    decoder, ids = built(name), random_ids(tiny_spec(), 3, before + 17)
    cache = warmed(decoder, ids, before, padding=padding)
    ids = ids[:, before:]
    return decoder, ids, cache, own(decoder, ids, cache)


@each_build
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_models_own_step_on_every_build(name: str, build: str) -> None:
    for before in (1, 6, 7, 23):
        decoder, ids, cache, steps = case(name, before)
        assert followed(decoder, ids, cache, steps=steps) < 1e-5


@pytest.mark.parametrize("rows", [1, 4, 5, 16])
def test_any_number_of_rows(rows: int, build: str) -> None:
    assert compared(built("published p-rope, scaled nope"), random_ids(tiny_spec(), rows, 20), 9) < 1e-5


@pytest.mark.parametrize("name", ["published p-rope, scaled nope", "heads that see differently"])
def test_a_cache_that_grows_and_one_that_is_rounded(name: str, build: str) -> None:
    decoder, ids = built(name), random_ids(tiny_spec(), 1, 300)
    assert compared(decoder, ids, 250) < 1e-5, "256 is where it grows"
    assert compared(decoder, ids[:, :40], 5, torch.bfloat16) < 2e-2
    assert compared(decoder, ids, 250, torch.int8) < 2e-2


@each_build
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("before", "padding"), [(3, 2), (9, 4), (12, 11), (23, 3)])
def test_padded_rows(name: str, before: int, padding: int, build: str) -> None:
    """A ring of window 7 holds padding in order, holds it out of order, or has dropped it."""
    decoder, ids, cache, steps = case(name, before, padding)
    assert followed(decoder, ids, cache, steps=steps) < 1e-5


@pytest.mark.parametrize("lengths", [(23, 3, 9), (5, 0, 2), (30, 12, 40)], ids=str)
def test_contexts_put_side_by_side(lengths: tuple[int, ...], build: str) -> None:
    decoder = built("published p-rope, scaled nope")
    ids = random_ids(tiny_spec(), 3, 40)
    caches = [decoder.new_cache() for _ in lengths]
    for i, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        if length:
            decoder(ids[i : i + 1, :length], cache=cache)
    assert followed(decoder, random_ids(tiny_spec(), 3, 20, seed=2), joined(caches)) < 1e-5


def test_it_goes_on_after_tokens_were_taken_back(build: str) -> None:
    decoder, ids = built("published p-rope, scaled nope"), random_ids(tiny_spec(), 1, 30)
    cache = warmed(decoder, ids, 10)
    quick, plain, mark = NativeStep(decoder, cache), cache.clone(), Mark(cache, 4)
    for token in ids[:, 10:14].split(1, 1):
        quick.step(token)
    mark.rollback(1)
    decoder(ids[:, 10:11], cache=plain)
    for token in ids[:, 15:].split(1, 1):
        assert largest(quick.step(token), decoder(token, cache=plain)) < 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "published p-rope, scaled nope",
        "untied, capped and scaled",
        "norms around, all heads apart",
        "heads that see differently",
    ],
)
def test_int8_weights(name: str, build: str) -> None:
    model = LanguageModel(built(name), tiny_spec(**MODELS[name]), None, "here")
    quantize(model)
    assert compared(model.decoder, random_ids(tiny_spec(), 2, 40), 9) < 1e-5


def test_wide_matrices_are_shared_out_among_threads(build: str) -> None:
    wide = {"S": {**layer(7, HARMONIC), "mlp": {"intermediate_size": 4096}}}
    decoder = enliven(tiny_spec(wide, hidden_size=64).build().eval())
    threads = torch.get_num_threads()
    try:
        for torch_threads in (1, 3):
            torch.set_num_threads(torch_threads)
            assert compared(decoder, random_ids(tiny_spec(), 2, 20), 9) < 1e-5
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("padding", [0, 6])
def test_rows_may_leave(padding: int, build: str) -> None:
    decoder, ids = built("published p-rope, scaled nope"), random_ids(tiny_spec(), 3, 20)
    cache = warmed(decoder, ids, 9, padding=padding)
    mine = cache.clone()
    quick, rows = NativeStep(decoder, mine), torch.tensor([1, 0])
    for t in range(9, 20):
        if t == 12:
            ids = ids[rows]
            cache.select(rows)
            mine.select(rows)
        assert largest(quick.step(ids[:, t : t + 1]), decoder(ids[:, t : t + 1], cache=cache)) < 1e-4


def test_an_interrupted_step_shows(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, ids = built("published p-rope, scaled nope"), random_ids(tiny_spec(), 1, 20)
    cache = warmed(decoder, ids, 9)
    quick = NativeStep(decoder, cache)

    def refused(*given: Any) -> None:
        raise native.MemoryRefused("no memory")

    monkeypatch.setattr(native, "run", refused)
    with pytest.raises(MemoryError, match="no memory"):
        quick.step(ids[:, 9:10])
    with pytest.raises(UserError, match="left halfway by a call that failed"):
        decoder(ids[:, 9:10], cache=cache)


def reason(decoder: Decoder, dtype: torch.dtype | None = None, rows: int = 1) -> str:
    return str(declines(decoder, decoder.new_cache(rows, dtype)))


@pytest.mark.skipif(native.missing() is not None, reason="needs the kernels")
def test_what_it_declines() -> None:
    decoder = built("published p-rope, scaled nope")
    assert reason(decoder) == "None"
    assert "more than 16" in reason(decoder, rows=17)
    assert reason(decoder, torch.int8) == "None"
    assert "of torch.float16" in reason(decoder, torch.float16)
    with use_backend("reference"):
        assert "another attention backend" in reason(decoder)
    placed = tiny_spec({"S": layer(7, ROPE)}).build().eval()
    placed(
        random_ids(tiny_spec(), 1, 3), cache=(given := placed.new_cache()), positions=torch.tensor([[0.5, 2.0, 3.0]])
    )
    assert "that the caller gives" in str(declines(placed, given))
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in reason(decoder)
    experts = {"type": "moe", "num_experts": 4, "experts_per_token": 2, "expert": {"intermediate_size": 48},
               "router": {"type": "softmax-topk"}}  # fmt: skip
    for block, expected in (
        (layer(7, {**HARMONIC, "pairing": "interleaved"}), "of neighbours"),
        (layer(7, HARMONIC, head_dim=16), "not a multiple of 16 wide"),
        (layer(7, {"type": "learned", "num_positions": 3, "then": HARMONIC}), "no plain rotation"),
        (layer(None, {"type": "alibi"}), "more than a softmax"),
        (layer(None, ROPE, softcap=9.0), "more than a softmax"),
        (layer(7, ROPE, sinks=True), "more than a softmax"),
        (layer(None, {"type": "forgetting"}), "more than"),
        (layer(7, ROPE, qk_norm={"type": "layernorm"}), "another norm"),
        ({**layer(7, ROPE), "mlp": experts}, "then a SwiGLU"),
        ({**layer(7, ROPE), "mlp": {"type": "geglu", "intermediate_size": 48}}, "then a SwiGLU"),
        ({**layer(7, ROPE), "mlp": {"intermediate_size": 24}}, "a multiple of 16 wide"),
        ({**layer(7, ROPE), "residual": "parallel"}, "then a SwiGLU"),
        ({**layer(7, ROPE), "residual_scale": 0.5}, "what a layer adds is scaled"),
    ):
        assert expected in reason(tiny_spec({"S": block}).build().eval()), expected
    assert "neither float32 nor int8" in reason(built("published p-rope, scaled nope").bfloat16())
    assert "no RMSNorm" in reason(tiny_spec({"S": layer(7, ROPE)}, norm={"type": "layernorm"}).build())
    assert "added to the embeddings" in reason(tiny_spec({"S": layer(7, ROPE)}, embed_positions=9).build())
    for name in ("layers.0.attention.q_proj", "layers.1.mlp", "layers.1.attention", "layers.0.mlp.down_proj"):
        other = built("published p-rope, scaled nope")
        module = other.get_submodule(name)
        module.__class__ = type("Adapted", (type(module),), {})
        assert "more than a matrix" in reason(other) or "then a SwiGLU" in reason(other)  # adapters, say
    with native.without():
        assert "switched off" in reason(decoder)


@pytest.mark.skipif(native.missing() is not None, reason="needs the kernels")
def test_int8_weights_that_stand_for_others_than_float32_go_another_way() -> None:
    plain = {"type": "rmsnorm", "eps": 1e-5, "gain": "none"}  # with a gain its dtype would be the reason
    spec = tiny_spec({"S": layer(7, ROPE)}, norm=plain)
    model = LanguageModel(spec.build().eval().bfloat16(), spec, None, "x")
    quantize(model)
    assert "neither float32 nor int8" in reason(model.decoder)
    assert len(generate(model, [1, 2], max_new_tokens=20, seed=0).ids) == 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_types_and_devices_are_for_new_tensors_only(model: LanguageModel, dtype: torch.dtype) -> None:
    want = texts(model)
    torch.set_default_dtype(dtype)
    try:
        assert texts(model) == want
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert texts(model) == want


def test_a_forward_of_somebody_elses_is_called_at_every_token(model: LanguageModel) -> None:
    class Without(LanguageModel):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            logits = super().forward(*args, **kwargs)
            logits[..., banned] = float("-inf")
            return logits

    want = texts(model)
    banned = want[0][-1]
    other = Without(model.decoder, model.spec, None, "x")
    assert not any(banned in ids for ids in texts(other))
    module, called = model.decoder.layers[1].mlp.down_proj, []
    own = type(module).forward
    module.forward = lambda x: (called.append(1), own(module, x))[1]
    assert texts(model) == want and len(called) == 2 + 59 + 29


def test_hooks_are_called_at_every_token(model: LanguageModel) -> None:
    want = texts(model)
    for module in (model, model.decoder, model.decoder.layers[1].mlp):
        called: list[int] = []
        handle = module.register_forward_hook(lambda *_, called=called: called.append(1))
        assert texts(model) == want and len(called) == 2 + 59 + 29, "two prompts read, and every token but the last"
        handle.remove()


@pytest.fixture
def model() -> LanguageModel:
    return LanguageModel(
        built("published p-rope, scaled nope"), tiny_spec(**MODELS["published p-rope, scaled nope"]), None, "x"
    )


def texts(model: LanguageModel, session: bool = False) -> list[list[int]]:
    one = generate(model, [3, 1, 4], max_new_tokens=60, seed=5, session=new_session(model) if session else None)
    several = generate_batch(model, [[3, 1], [4, 1, 5]], max_new_tokens=30, seed=5)
    return [one.ids, *(each.ids for each in several)]


@pytest.mark.skipif(native.missing() is not None, reason="needs the kernels")
def test_generation_goes_the_same_way(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    class Watched(NativeStep):
        def step(self, ids: Tensor) -> Tensor:
            steps.append(len(ids))
            return super().step(ids)

    monkeypatch.setattr(ways, "NativeStep", Watched)
    quick = texts(model)
    assert steps == [1] * 59 + [2] * 29, "every token but the last went through it"
    assert texts(model, session=True) == quick
    monkeypatch.setattr(ways, "SOME", 1000)
    assert texts(model) == quick and len(steps) == 2 * (59 + 29)


@pytest.mark.skipif(native.missing() is not None, reason="needs the kernels")
def test_a_session_goes_on_from_what_it_left(model: LanguageModel) -> None:
    session = new_session(model)
    first = generate(model, [3, 1, 4], max_new_tokens=20, seed=5, session=session).ids
    assert session.cache.length == 3 + 19 and session.pending == [first[-1]]
    whole = model(torch.tensor([[3, 1, 4, *first]]))[:, -1]
    assert largest(model(torch.tensor([[first[-1]]]), cache=session.cache)[:, -1], whole) < 1e-4


def test_the_shipped_models_take_it() -> None:
    for name in ("miniwin-1m", "miniwin-512"):
        decoder = miniwin.build(name).decoder
        assert native.missing() is not None or reason(decoder) == "None"
