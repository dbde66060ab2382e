"""Caches: a ring written in place, storage dtypes and their bytes, one new token against the naive path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers import GLOBAL, LOCAL, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.blocks.attention.cached import attend_cached
from miniwin.blocks.attention_ops import AttentionCall, reference, use_backend
from miniwin.blocks.cache import GrowingCache, Int8Cache, RingCache, storage_dtype
from miniwin.blocks.cache.first_tokens import FirstTokens
from miniwin.blocks.int8 import quantised, widened
from miniwin.specs import UserError

DTYPES = ("float32", "bfloat16", "float16", "int8")
# How much logits may change if the cache is rounded, as a share of their spread: ten times the error of one number.
BOUNDS = {"float32": 10 * 2**-20, "float16": 10 * 2**-11, "bfloat16": 10 * 2**-8, "int8": 10 / 254}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def times(t: Tensor) -> list[int]:
    """The numbers of the tokens in (B, M, 1, 1), where each entry holds its token's number."""
    return [int(x) for x in t[0, :, 0, 0]]


def tokens(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count, dtype=torch.float32).view(1, count, 1, 1)


# ---- the ring


@pytest.mark.parametrize("window", [1, 2, 5])
@torch.no_grad()
def test_a_ring_gives_one_token_its_window_as_it_lies(window: int) -> None:
    ring = RingCache(window, [torch.zeros(1, 0, 1, 1)] * 2)
    places = [t.data_ptr() for t in ring.stored]
    for t in range(3 * window + 2):
        keys, values = ring.append(tokens(t, 1), -tokens(t, 1), in_order=False)
        assert sorted(times(keys)) == list(range(max(0, t - window + 1), t + 1))
        assert torch.equal(values, -keys)
        assert keys.data_ptr() == ring.stored[0].data_ptr()  # not a copy
    assert [t.data_ptr() for t in ring.stored] == places


@pytest.mark.parametrize("window", [1, 2, 5, 8])
@torch.no_grad()
def test_a_ring_in_order_whatever_the_chunks(window: int) -> None:
    for sizes in ((1,), (3,), (window,), (window + 1,), (1, 7, 2, 20, 1)):
        ring, t = RingCache(window, [torch.full((1, 0, 1, 1), float("nan"))]), 0
        for step in range(12):
            n = sizes[step % len(sizes)]
            (keys,) = ring.append(tokens(t, n), in_order=True)
            assert times(keys) == list(range(t - min(t, window - 1), t + n)), f"chunks of {sizes}"
            t += n


@pytest.mark.parametrize("size", [0, 1, 3, 9])
def test_one_token_reads_the_ring_and_the_first_tokens_as_one(size: int) -> None:
    """Each token that it sees once: those of the window, and the first ones that the window has lost."""
    empty = [torch.full((1, 0, 1, 1), float("nan"))]
    ring = RingCache(4, empty, FirstTokens(size, empty) if size else None)
    for t in range(20):
        if t == 11:
            ring = ring.clone()
        if t == 14:
            ring.select(torch.tensor([0]))
        seen = ring.append_seen(torch.full((1, 1, 1, 1), float(t)))
        if size == 0:
            assert seen is None and ring.length == 0, "without first tokens `append` gives the same"
            return
        assert seen is not None
        window = set(range(max(0, t - 3), t + 1))
        assert sorted(seen[0].flatten().int().tolist()) == sorted(window | set(range(min(size, t + 1))))
        assert seen[0].shape[1] == ring.in_sight() and ring.first is not None
        assert ring.first.stored[0].flatten()[: ring.first.entries].tolist() == list(range(min(size, t + 1)))
    assert ring.append_seen(torch.zeros(1, 2, 1, 1)) is None, "several tokens do not see the same"
    assert ring.length == 20


def test_in_training_a_ring_gives_a_copy_with_gradients() -> None:
    ring = RingCache(3, [torch.zeros(1, 0, 1, 1)])
    ring.append(tokens(0, 5))
    new = tokens(5, 1).requires_grad_()
    (keys,) = ring.append(new, in_order=False)
    ring.append(tokens(6, 1), in_order=False)  # does not change what `append` returned before
    assert times(keys) == [3, 4, 5]
    keys.sum().backward()
    assert new.grad is not None and new.grad.item() == 1


@torch.no_grad()
def test_a_growing_cache_reserves_once() -> None:
    spec = tiny_spec()
    decoder = spec.build().eval()
    cache, ids = decoder.new_cache(), random_ids(spec, 1, 600)
    decoder(ids[:, :5], cache=cache)
    cache.reserve(600)
    places = [t.data_ptr() for layer in cache.layers for t in layer.stored]
    decoder(ids[:, 5:], cache=cache)
    assert [t.data_ptr() for layer in cache.layers for t in layer.stored] == places
    assert all(layer.capacity == 600 for layer in cache.layers if isinstance(layer, GrowingCache))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
@torch.no_grad()
def test_rows_that_are_selected_go_on_alone(dtype: torch.dtype) -> None:
    spec = tiny_spec({"S": attention(7, LOCAL, keep_first=2), "G": attention(None, {"type": "forgetting"})})
    decoder = enliven(spec.build()).eval()
    ids, more = random_ids(spec, 3, 20), random_ids(spec, 3, 12, seed=2)
    mask = torch.tensor([[0] * 15 + [1] * 5, [1] * 20, [0] * 2 + [1] * 18])
    caches = [decoder.new_cache(3, dtype=dtype) for _ in range(2)]
    for cache in caches:
        decoder(ids, cache=cache, attention_mask=mask)
    rows = torch.tensor([2, 0])
    caches[1].select(rows)
    assert caches[1].batch_size == 2
    for part in more.split(5, 1):
        whole, some = decoder(part, cache=caches[0]), decoder(part[rows], cache=caches[1])
        assert largest(whole[rows], some) < 1e-4


# ---- one new token


@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (4, 1)], ids=str)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@torch.no_grad()
def test_one_token_equals_the_reference(heads: tuple[int, int], padded: bool, dtype: str) -> None:
    for m in (1, 2, 65, 700):
        q = draw(3, 1, heads[0], 16, seed=m)
        k, v = (draw(3, m, heads[1], 16, seed=m + i) for i in (1, 2))
        pad = torch.tensor([0, m // 2, m]) if padded else None
        scales = None
        held = k, v
        if dtype == "int8":
            (k8, k_scale), (v8, v_scale) = quantised(k), quantised(v)
            held, scales = (k8, v8), (k_scale, v_scale)
            k, v = widened(k8, k_scale, k.dtype), widened(v8, v_scale, v.dtype)
        expected = reference.run(AttentionCall(q, k, v, 0.3, pad=pad))
        call = AttentionCall(q, *held, 0.3, pad=pad, window=m)
        assert largest(attend_cached(call, scales), expected) < 1e-5, f"{m} keys"
        with use_backend("reference"):
            assert largest(attend_cached(call, scales), expected) < 1e-5, "a forced backend answers"


@torch.no_grad()
def test_int8_is_widened_piece_by_piece_over_a_long_cache() -> None:
    q, k, v = draw(1, 1, 4, 64), draw(1, 5000, 2, 64, seed=1), draw(1, 5000, 2, 64, seed=2)
    (k8, k_scale), (v8, v_scale) = quantised(k), quantised(v)
    got = attend_cached(AttentionCall(q, k8, v8, 0.5), (k_scale, v_scale))
    wide = [widened(*rows, torch.float32) for rows in ((k8, k_scale), (v8, v_scale))]
    assert largest(got, reference.run(AttentionCall(q, *wide, 0.5))) < 1e-5
    assert 0 < largest(got, reference.run(AttentionCall(q, k, v, 0.5))) < 0.05


# ---- storage dtypes


def in_steps(decoder: Decoder, ids: Tensor, sizes: Sequence[int], **options: Any) -> Tensor:
    cache, parts, at = decoder.new_cache(len(ids), **options), [], 0
    while at < ids.shape[1]:
        n = sizes[len(parts) % len(sizes)]
        parts.append(decoder(ids[:, at : at + n], cache=cache))
        at += n
    return torch.cat(parts, 1)


BLOCKS = {
    "nope": {"S": attention(7, LOCAL), "G": attention(None, GLOBAL)},
    "rope": {"S": attention(7, LOCAL), "G": attention(None, {"type": "rope"}, qk_norm={"type": "rmsnorm"})},
    "alibi": {"S": attention(7, {"type": "alibi"}), "G": attention(None, {"type": "alibi"})},
    "gates": {"S": attention(7, LOCAL, keep_first=2), "G": attention(None, {"type": "forgetting"})},
    "chunk": {"S": attention(None, LOCAL, chunk=7), "G": attention(None, GLOBAL, sinks=True, softcap=5.0)},
    "hope": {"S": attention(7, {"type": "hope"}), "G": attention(None, {"type": "stick-breaking"})},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_a_rounded_cache_stays_close_and_counts_its_bytes(name: str, dtype: str) -> None:
    spec = tiny_spec(BLOCKS[name])
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 2, 40)
    exact = decoder(ids)
    stored = storage_dtype(dtype)
    by_one, by_five = (in_steps(decoder, ids, sizes, dtype=stored) for sizes in ((1,), (5, 1, 13)))
    for logits in (by_one, by_five):
        assert logits.dtype == torch.float32
        assert largest(logits, exact) < BOUNDS[dtype] * exact.std()
        assert dtype == "float32" or largest(logits, exact) > 1e-5, "rounding should show"
    cache = decoder.new_cache(2, dtype=stored)
    for length in (1, 7, 8, 40):
        decoder(ids[:, cache.length : length], cache=cache)
        assert cache.nbytes == 2 * spec.cache_bytes(length, dtype), f"after {length} tokens"


@torch.no_grad()
def test_int8_is_for_what_keeps_everything() -> None:
    cache = tiny_spec().build().new_cache(dtype=torch.int8)
    kinds = [(type(layer), layer.stored[0].dtype) for layer in cache.layers]
    assert kinds == [(RingCache, torch.bfloat16), (Int8Cache, torch.int8)] * 2


@torch.no_grad()
def test_a_copy_of_an_int8_cache_is_its_own() -> None:
    spec = tiny_spec()
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 1, 30)
    cache = decoder.new_cache(dtype=torch.int8)
    decoder(ids[:, :20], cache=cache)
    branch = cache.clone()
    decoder(ids[:, 3:9], cache=branch)
    other = decoder.new_cache(dtype=torch.int8)
    decoder(ids[:, :20], cache=other)
    assert torch.equal(decoder(ids[:, 20:], cache=cache), decoder(ids[:, 20:], cache=other))


def test_quantised_rows_are_within_half_a_scale_and_zeros_stay_zero() -> None:
    rows = draw(2, 5, 3, 16) * torch.tensor([1e-6, 1.0, 1e6]).view(1, 1, 3, 1)
    rows[0, 0] = 0
    values, scale = quantised(rows)
    assert values.dtype == torch.int8 and int(values.abs().max()) == 127
    assert bool(((widened(values, scale, torch.float32) - rows).abs() <= scale.unsqueeze(-1) * 0.5001).all())
    assert not values[0, 0].any() and not scale[0, 0].any()


def test_dtypes_that_a_cache_cannot_be_are_refused() -> None:
    decoder = tiny_spec().build()
    for dtype in (torch.int32, torch.complex64):
        with pytest.raises(UserError, match="for a cache; expected one of float32, bfloat16, float16, int8"):
            decoder.new_cache(dtype=dtype)
    with pytest.raises(UserError, match="dtype: got 'int4' for a cache"):
        storage_dtype("int4")
    with pytest.raises(UserError, match="got an int8 cache in training; gradients do not pass it"):
        decoder(torch.zeros(1, 3, dtype=torch.int64), cache=decoder.new_cache(dtype=torch.int8))


# ---- lengths and bytes of a cache


@torch.no_grad()
def test_a_cache_says_where_its_tokens_lie_and_how_much_room_they_take() -> None:
    for cache, room in ((RingCache(5, [torch.zeros(1, 0, 1, 1)]), 5), (GrowingCache([torch.zeros(1, 0, 1, 1)]), 12)):
        cache.append(tokens(0, 12))
        held = torch.arange(12 - cache.entries, 12)
        assert torch.equal(cache.stored[0][0, cache.slot(held), 0, 0], held.float())
        assert [cache.slot(int(token)) for token in held] == cache.slot(held).tolist()
        assert cache.room(12) == room
        assert {name: sorted(times(view)) for name, view in cache.held().items()} == {"0": held.tolist()}


@torch.no_grad()
def test_a_cache_says_what_it_keeps_and_how_it_may_be_written_to() -> None:
    key, gate = torch.zeros(1, 0, 1, 1), torch.zeros(1, 0, 1)
    first = FirstTokens(2, [key, key])
    assert RingCache(5, [key, key]).plain and GrowingCache([key, key]).plain and Int8Cache([key, key]).plain
    assert RingCache(5, [key, key], first).plain
    assert not GrowingCache([key, key, gate]).plain and not Int8Cache([key, key, gate]).plain
    assert Int8Cache.int8 and not RingCache.int8 and not GrowingCache.int8
    ring, whole = RingCache(5, [key]), GrowingCache([key])
    assert [ring.claims(n) for n in (1, 2)] == [True, False] and whole.claims(2)
