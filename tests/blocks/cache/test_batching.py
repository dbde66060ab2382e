"""Batched caches: contexts of different lengths go on together as each would alone, and can be split again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from covering import every_two
from helpers import BLOCKS, GLOBAL, LOCAL, attention, enliven, largest, random_ids, tiny_spec

import miniwin
from miniwin.blocks import Cache, Decoder
from miniwin.blocks.cache.batching import joined, row
from miniwin.generation import generate, generate_batch
from miniwin.language_model import LanguageModel
from miniwin.sessions import Session, load_session, new_session, save_session
from miniwin.specs import ModelSpec, UserError

LENGTHS = {"long": (40, 9, 22), "short": (3, 12, 0), "equal": (6, 6, 6), "around the window": (7, 6, 8)}


def cost_of_int8(decoder: Decoder, ids: torch.Tensor, more: torch.Tensor) -> float:
    """How far logits with a cache in eight bits lie from those with one in float32. ids, more: (1, N) and (1, M)."""
    caches = [decoder.new_cache(dtype=dtype) for dtype in (torch.float32, torch.int8)]
    for cache in caches:
        decoder(ids, cache=cache)
    return max(largest(*(decoder(more[:, i : i + 1], cache=cache) for cache in caches)) for i in range(more.shape[1]))


@pytest.mark.parametrize(
    ("name", "lengths", "dtype"), every_two(list(BLOCKS), list(LENGTHS.values()), (torch.float32, torch.int8)), ids=str
)
@torch.no_grad()
def test_contexts_go_on_together_as_alone(name: str, lengths: tuple[int, ...], dtype: torch.dtype) -> None:
    spec = tiny_spec(BLOCKS[name])
    decoder = enliven(spec.build()).eval()
    ids, more, later = (random_ids(spec, 3, n, seed) for n, seed in ((40, 1), (20, 2), (11, 3)))
    bound = 1e-4 if dtype == torch.float32 else 0.02  # now and then the last bit of a key decides its rounding
    if dtype == torch.int8 and name in ("gates", "split", "heads"):
        # A row without padding reads its first tokens with the ring, in bfloat16 where there is no kernel.
        bound = cost_of_int8(decoder, ids[:1], more[:1])
    alone = [decoder.new_cache(dtype=dtype) for _ in lengths]
    for i, length in enumerate(lengths):
        if length:
            decoder(ids[i : i + 1, :length], cache=alone[i])
    together = joined(alone)
    assert together.batch_size == 3 and together.length == max(lengths)
    assert [row(together, i).nbytes for i in range(3)] == [cache.nbytes for cache in alone]
    parts = more.split([1] * 9 + [5, 6], 1)
    for part in parts:
        got = decoder(part, cache=together)
        for i, cache in enumerate(alone):
            assert largest(got[i], decoder(part[i : i + 1], cache=cache)[0]) < bound
    apart = [row(together, i) for i in range(3)]
    for i, (one, other) in enumerate(zip(apart, alone, strict=True)):
        assert (one.length, one.pad, one.nbytes) == (other.length, None, other.nbytes)
        for part in later.split([1, 1, 9], 1):
            mine, theirs = (decoder(part[i : i + 1], cache=cache) for cache in (one, other))
            assert largest(mine, theirs) < bound


@torch.no_grad()
def test_what_comes_out_is_a_copy() -> None:
    spec = tiny_spec()
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 1, 30)
    caches = [decoder.new_cache() for _ in range(2)]
    for cache, length in zip(caches, (10, 4), strict=True):
        decoder(ids[:, :length], cache=cache)
    together, other = joined(caches), caches[1].clone()
    part = row(together, 1)
    decoder(ids[:, 10:20].expand(2, -1), cache=together)
    decoder(ids[:, 10:15], cache=part)
    assert torch.equal(decoder(ids[:, 4:], cache=caches[1]), decoder(ids[:, 4:], cache=other))


def test_caches_that_cannot_go_together_are_refused() -> None:
    spec = tiny_spec()
    decoder = spec.build().eval()
    one, ids = decoder.new_cache(), random_ids(spec, 1, 5)

    def refused(other: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            joined([one, other])

    refused(decoder.new_cache(2), "got batch size 2, or padding; expected one row")
    refused(decoder.new_cache(dtype=torch.bfloat16), "of different models, dtypes or devices")
    wider = tiny_spec({"S": attention(8, LOCAL), "G": attention(None, GLOBAL)})
    refused(wider.build().new_cache(), "of different models, dtypes or devices")
    refused(object(), "got a object; this model's contexts cannot be put side by side")
    half = decoder.new_cache()
    decoder(ids, cache=half)
    half.layers[0].length += 1
    refused(half, "left halfway")


# ---- several sessions


def made(spec: ModelSpec) -> LanguageModel:
    model = miniwin.build(spec).eval()
    enliven(model.decoder)
    return model


def opened(model: LanguageModel, dtype: str | None = None) -> list[Session]:
    """Three sessions: one empty, one with 25 ids and 25 tokens generated after them, one with 3 and 3."""
    sessions = [new_session(model, dtype) for _ in range(3)]
    for session, ids in zip(sessions[1:], ([7] * 20 + [1, 2, 3, 4, 5], [9, 8, 7]), strict=True):
        generate(model, ids, max_new_tokens=len(ids), temperature=0, session=session)
    return sessions


def wide_spec() -> ModelSpec:
    """A spec whose decoding steps the C kernels run in one call, if they are there."""
    blocks = {letter: {**block, "head_dim": 32} for letter, block in BLOCKS["nope"].items()}
    return tiny_spec({letter: {"attention": b, "mlp": {"intermediate_size": 48}} for letter, b in blocks.items()})


@pytest.mark.parametrize(
    ("dtype", "settings", "spec"),
    every_two([None, "int8"], [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}], [tiny_spec(), wide_spec()]),
)
def test_several_sessions_go_on_as_each_would_alone(
    dtype: str | None, settings: dict[str, Any], spec: ModelSpec, tmp_path: Path
) -> None:
    model = made(spec)
    alone, together = opened(model, dtype), opened(model, dtype)
    for prompts in ([[1, 2, 3], [4], []], [[5], [], [6] * 12]):
        expected = [
            generate(model, ids, max_new_tokens=15, session=session, **settings)
            for ids, session in zip(prompts, alone, strict=True)
        ]
        got = generate_batch(model, prompts, max_new_tokens=15, sessions=together, **settings)
        assert [one.ids for one in got] == [one.ids for one in expected]
        for one, other in zip(together, alone, strict=True):
            assert (one.tokens, one.pending, one.tail) == (other.tokens, other.pending, other.tail)
            assert one.cache.length == other.cache.length and one.cache.batch_size == 1
    save_session(together[2], model, tmp_path / "s.safetensors")
    loaded = load_session(model, tmp_path / "s.safetensors")
    again = [generate(model, [2], max_new_tokens=9, session=session, **settings).ids for session in (loaded, alone[2])]
    assert again[0] == again[1]


@pytest.mark.parametrize("calls", [1, 2, 4, 7])
def test_sessions_cut_short_can_go_on(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One session was read, or some tokens were drawn, before the cut: no token is lost, and none comes twice."""
    model = made(tiny_spec())
    alone, together = opened(model), opened(model)
    prompts = [[1, 2, 3], [4, 4], [5] * 4]
    expected = [
        generate(model, ids, max_new_tokens=12, temperature=0, session=session).ids
        for ids, session in zip(prompts, alone, strict=True)
    ]
    forward, made_calls = model.forward, []

    def failing(*args: Any, **kwargs: Any) -> torch.Tensor:
        made_calls.append(1)
        if len(made_calls) == calls:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            generate_batch(model, prompts, max_new_tokens=12, temperature=0, sessions=together)
    drawn = [
        session.tokens - before - len(ids) for session, before, ids in zip(together, (0, 50, 6), prompts, strict=True)
    ]
    assert drawn == [max(0, calls - 4)] * 3
    went_on = generate_batch(model, [[]] * 3, max_new_tokens=12 - drawn[0], temperature=0, sessions=together)
    assert [one.ids for one in went_on] == [ids[drawn[0] :] for ids in expected]


def test_a_list_of_sessions_for_a_list_of_prompts() -> None:
    model = made(tiny_spec())
    prompts = [[1, 2], [3]]
    alone = [model.generate(ids, max_new_tokens=5, seed=1) for ids in prompts]
    sessions = [new_session(model), new_session(model)]
    assert model.generate(prompts, max_new_tokens=5, seed=1, session=sessions) == alone
    one: Any = new_session(model)
    call: Any = model.generate
    for given, message in (
        ({"session": one}, "got a single one with several prompts; expected a list"),
        ({"session": [one]}, "got 1 for 2 prompts; expected one for each"),
        ({"session": [one, one]}, "got the same session twice"),
        ({"session": sessions, "cache_dtype": "int8"}, "with a session, whose cache has a dtype already"),
        ({"session": [one, new_session(model, "int8")]}, "of different models, dtypes or devices"),
    ):
        with pytest.raises(UserError, match=message):
            call(prompts, **given)
    with pytest.raises(UserError, match="got several with a single prompt; expected one"):
        call([1, 2], session=sessions)
    assert one.tokens == 0 and isinstance(one.cache, Cache)
