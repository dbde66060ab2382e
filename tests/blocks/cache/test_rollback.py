"""Rollback: after tokens are taken back out of a cache, it goes on as if they had never been there."""

from __future__ import annotations

import pytest
import torch
from covering import every_two
from helpers import BLOCKS, GLOBAL, LOCAL, attention, enliven, random_ids, tiny_spec

from miniwin.blocks import Decoder
from miniwin.blocks.cache import Cache
from miniwin.blocks.cache.rollback import Mark
from miniwin.specs import UserError


def same(decoder: Decoder, one: Cache, other: Cache, more: torch.Tensor) -> bool:
    """Whether copies of both caches go on alike, token by token and in one call."""
    assert (one.length, one.nbytes, one.given) == (other.length, other.nbytes, other.given)
    assert (one.pad is None) == (other.pad is None) and (one.pad is None or torch.equal(one.pad, other.pad))
    for sizes in ([1] * 9, [9]):
        first, second = one.clone(), other.clone()
        for part in more.split(sizes, 1):
            if not torch.equal(decoder(part, cache=first), decoder(part, cache=second)):
                return False
    return True


@pytest.mark.parametrize(
    ("name", "before", "dtype", "keeps"),
    every_two(list(BLOCKS), (0, 3, 7, 30), (torch.float32, torch.int8), ((0, 4), (1, 6))),
)
@torch.no_grad()
def test_what_is_taken_back_was_never_there(name: str, before: int, dtype: torch.dtype, keeps: tuple[int, int]) -> None:
    spec = tiny_spec(BLOCKS[name])
    decoder = enliven(spec.build()).eval()
    ids, guess, more = random_ids(spec, 2, 30), random_ids(spec, 2, 6, seed=2), random_ids(spec, 2, 9, seed=3)
    for keep in keeps:
        taken, plain = (decoder.new_cache(2, dtype=dtype) for _ in range(2))
        for cache in (taken, plain):
            if before:
                decoder(ids[:, :before], cache=cache)
        mark = Mark(taken, 6)
        if keep:  # the guess in the same two pieces, so that all is equal to the last bit
            decoder(guess[:, :keep], cache=taken)
            decoder(guess[:, :keep], cache=plain)
        if keep < 6:
            decoder(guess[:, keep:], cache=taken)
            assert taken.length == before + 6
        mark.rollback(keep)
        assert same(decoder, taken, plain, more), f"{keep} kept"


@torch.no_grad()
def test_a_guess_is_checked_in_one_call_and_half_of_it_kept() -> None:
    """Greedy speculative decoding with guesses that are right now and then gives what plain decoding gives."""
    spec = tiny_spec()
    decoder = enliven(spec.build()).eval()
    prompt = random_ids(spec, 1, 12)
    plain, cache = [], decoder.new_cache()
    token = decoder(prompt, cache=cache)[:, -1:].argmax(-1)
    for _ in range(40):
        plain.append(int(token))
        token = decoder(token, cache=cache).argmax(-1)
    said, cache, generator = [], decoder.new_cache(), torch.Generator().manual_seed(0)
    token, kept = decoder(prompt, cache=cache)[:, -1:].argmax(-1), set()
    while len(said) < 40:
        said.append(int(token))
        guess = torch.tensor([(plain[len(said) :] + [0] * 4)[:4]])
        guess[0, int(torch.randint(5, (), generator=generator)) :] = 0  # the guess is wrong from here on
        mark = Mark(cache, 5)
        best = decoder(torch.cat([token, guess], 1), cache=cache).argmax(-1)
        right = int((best[:, :-1] == guess).long().cumprod(1).sum())
        mark.rollback(1 + right)
        kept.add(right)
        said += guess[0, :right].tolist()
        token = best[:, right : right + 1]
    assert said[:40] == plain and len(kept) > 2


@torch.no_grad()
def test_a_mark_can_be_used_again_and_mends_what_a_failed_call_left() -> None:
    spec = tiny_spec()
    decoder = enliven(spec.build()).eval()
    ids, more = random_ids(spec, 1, 40), random_ids(spec, 1, 9, seed=3)
    cache = decoder.new_cache()
    decoder(ids[:, :20], cache=cache)
    before, mark = cache.clone(), Mark(cache, 6)
    for first in (20, 30):
        decoder(ids[:, first : first + 5], cache=cache)
        mark.rollback(2)
        mark.rollback()
        assert same(decoder, cache, before, more)

    def fails(*args: object) -> None:
        raise KeyboardInterrupt

    hook = decoder.layers[2].register_forward_pre_hook(fails)
    with pytest.raises(KeyboardInterrupt):
        decoder(ids[:, 20:24], cache=cache)
    hook.remove()
    with pytest.raises(UserError, match="left halfway"):
        decoder(ids[:, 20:24], cache=cache)
    with pytest.raises(UserError, match="left halfway"):
        Mark(cache, 4)
    mark.rollback()
    assert same(decoder, cache, before, more)


@torch.no_grad()
def test_rows_with_padding_go_back_too() -> None:
    spec = tiny_spec()
    decoder = enliven(spec.build()).eval()
    ids, more = random_ids(spec, 2, 12), random_ids(spec, 2, 9, seed=3)
    mask = torch.tensor([[1] * 12, [0] * 6 + [1] * 6])
    for start in (0, 4, 8):
        taken, plain = decoder.new_cache(2), decoder.new_cache(2)
        for cache in (taken, plain):
            if start:
                decoder(ids[:, :start], cache=cache, attention_mask=mask[:, :start])
        mark = Mark(taken, 7)
        part = slice(start, start + 4)
        decoder(ids[:, part], cache=taken, attention_mask=mask[:, part])
        mark.rollback()
        assert (
            same(decoder, taken, plain, more) if start > 6 else (taken.length, taken.pad is None) == (start, start == 0)
        )
        for cache in (taken, plain):
            decoder(ids[:, start:], cache=cache, attention_mask=mask[:, start:])
        assert same(decoder, taken, plain, more)


@torch.no_grad()
def test_what_cannot_be_taken_back_is_refused() -> None:
    spec = tiny_spec({"S": attention(7, LOCAL), "G": attention(None, GLOBAL)})
    decoder = enliven(spec.build()).eval()
    ids, more = random_ids(spec, 2, 40), random_ids(spec, 2, 9, seed=3)
    cache = decoder.new_cache(2)
    with pytest.raises(UserError, match="tokens: got 0; expected how many may be taken back, at least 1"):
        Mark(cache, 0)
    decoder(ids[:, :9], cache=cache)
    before, mark = cache.clone(), Mark(cache, 10)
    decoder(ids[:, 9:18], cache=cache)
    for keep in (-1, 10):
        with pytest.raises(UserError, match=f"keep: got {keep}; expected 0 to 9, the tokens since the mark"):
            mark.rollback(keep)
    with pytest.raises(UserError, match="got 3 of 9 tokens, which a window of 7 no longer has; expected 0"):
        mark.rollback(3)
    mark.rollback(9)
    assert cache.length == 18
    mark.rollback()
    assert same(decoder, cache, before, more)
    decoder(ids[:, :11], cache=cache)
    with pytest.raises(UserError, match="the mark was made for 10 tokens; the cache has got 11 since"):
        mark.rollback()
    cache.select(torch.tensor([0]))
    with pytest.raises(UserError, match="has lost rows, or all its tokens, since the mark"):
        mark.rollback()
