"""Contexts with a cache each in one step: judged by float64, as near as the model's own step of each alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from float64 import assert_as_near
from helpers import largest, random_ids, tiny_spec
from native_models import HARMONIC, MODELS, SCALED, built, layer

from miniwin.blocks import Decoder, native
from miniwin.blocks.cache import Cache
from miniwin.blocks.cache.rollback import Mark
from miniwin.blocks.decode.rows_step import RowsStep, declines
from miniwin.specs import UserError


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class Contexts:
    """Contexts that are stepped together, and twice more, each alone: by the model itself, and by it in float64."""

    def __init__(self, decoder: Decoder, exact: Decoder, dtype: torch.dtype | None = None) -> None:
        self.decoder, self.exact, self.dtype = decoder, exact, dtype
        self.together: list[Cache] = []
        self.alone: list[Cache] = []
        self.exactly: list[Cache] = []
        self.step = RowsStep(decoder, decoder.new_cache(1, dtype))
        self.results: list[list[torch.Tensor]] = [[], [], []]

    def join(self, length: int) -> None:
        ids = random_ids(tiny_spec(), 1, length, seed=length)
        cache, exactly = self.decoder.new_cache(1, self.dtype), self.exact.new_cache(1)
        if length:
            self.decoder(ids, cache=cache)
            self.exact(ids, cache=exactly)
        self.together.append(cache)
        self.alone.append(cache.clone())
        self.exactly.append(exactly)

    def read(self, place: int, tokens: int) -> None:
        ids = random_ids(tiny_spec(), 1, tokens, seed=tokens)
        self.step.read(ids[0].tolist(), self.together[place])
        self.decoder(ids, cache=self.alone[place])
        self.exact(ids, cache=self.exactly[place])

    def leave(self, place: int) -> None:
        for caches in (self.together, self.alone, self.exactly):
            del caches[place]

    def take(self, tokens: int) -> None:
        for t in range(tokens):
            ids = [(7 * t + 3 * i) % 61 for i in range(len(self.together))]
            got = self.step.step(ids, self.together)
            assert got.shape == (len(ids), 61)
            self.results[0] += list(got)
            for out, decoder, caches in zip(
                self.results[1:], (self.decoder, self.exact), (self.alone, self.exactly), strict=True
            ):
                out += [decoder(torch.tensor([[i]]), cache=c)[0, 0] for i, c in zip(ids, caches, strict=True)]

    def judge(self) -> None:
        together, alone, exact = map(torch.stack, self.results)
        assert_as_near(together, alone, exact)
        for a, b in zip(self.together, self.alone, strict=True):
            assert not a.halfway and a.length == b.length
            for name, entries in b.held().items():
                assert largest(a.held()[name].float(), entries.float()) < 1e-4, name


def contexts(name: str, dtype: torch.dtype | None = None) -> Contexts:
    return Contexts(built(name), built(name).double(), dtype)


@pytest.mark.parametrize("build", list(native.BUILDS), indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_contexts_of_any_lengths_that_join_and_leave(name: str, build: str) -> None:
    """The windows are 7; a growing cache grows at 256."""
    some = contexts(name)
    for length in (3, 8, 30, 250):
        some.join(length)
    some.take(3)
    some.leave(1)
    some.take(2)
    some.join(0)
    some.join(0)
    some.read(-1, 18)
    some.join(6)
    some.take(5)
    for place, tokens in enumerate((1, 5, 40, 9, 16, 2)):
        some.read(place, tokens)
    some.take(2)
    some.leave(0)
    some.leave(0)
    some.take(2)
    some.judge()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("longest", [40, 600])
def test_threads_share_contexts_or_matrices(threads: int, longest: int, build: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        some = contexts("published p-rope, scaled nope")
        for length in [*range(1, 16), longest]:
            some.join(length)
        some.take(3)
        some.judge()
    finally:
        torch.set_num_threads(before)


def test_one_context_goes_as_well(build: str) -> None:
    some = contexts("heads that see differently")
    some.join(20)
    some.take(3)
    some.judge()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.int8, 2e-2)])
def test_caches_that_are_rounded(dtype: torch.dtype, bound: float, build: str) -> None:
    some = contexts("published p-rope, scaled nope", dtype)
    for length in (5, 250):
        some.join(length)
    some.take(8)
    together, alone, _ = map(torch.stack, some.results)
    assert largest(together, alone) < bound * float(alone.abs().max())


def test_tokens_are_taken_back_and_caches_copied_between_steps(build: str) -> None:
    some = contexts("first tokens")
    for length in (9, 4, 12):
        some.join(length)
    some.take(2)
    caches = some.together, some.alone, some.exactly
    marks = [Mark(each[1], 4) for each in caches]
    some.take(3)
    for mark in marks:
        mark.rollback()
    some.take(2)
    for each in caches:
        each[0] = each[0].clone()
        each[2].reserve(700)
    some.take(4)
    some.judge()


def test_an_interrupted_step_shows_in_every_context(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some = contexts("published p-rope, scaled nope")
    for length in (5, 20):
        some.join(length)
    some.take(1)
    marks = [Mark(cache, 2) for cache in some.together]

    def refused(*given: Any) -> None:
        raise native.MemoryRefused("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(native, "run", refused)
        with pytest.raises(MemoryError, match="no memory"):
            some.step.step([1, 2], some.together)
    for cache, mark in zip(some.together, marks, strict=True):
        with pytest.raises(UserError, match="left halfway"):
            cache.check_whole()
        mark.rollback()
    some.take(3)
    some.judge()


@pytest.mark.skipif(native.missing() is not None, reason="needs the kernels")
def test_what_it_declines() -> None:
    def reason(decoder: Decoder) -> str:
        return str(declines(decoder, decoder.new_cache(1)))

    assert reason(built("heads that see differently")) == "None"
    assert "another norm" in reason(tiny_spec({"S": layer(7, HARMONIC, qk_norm={"type": "layernorm"})}).build())
    whole = {**SCALED, "logit_scale": {"type": "log-ratio", "total_length": True}}
    assert "length of their whole batch" in reason(tiny_spec({"G": layer(None, whole)}).build())
