"""Generating text: prefill the prompt through the cache in chunks, then draw one token at a time.

The result is the new text only, without the prompt. Generation ends after `max_new_tokens`, at a stop string, or when
the model draws the document separator. Stop string and separator are not part of the text. An imported model ends at
every id that its files call an end, such as <|eot_id|>.

An empty prompt starts as documents do in training: after a separator. The prompt of an imported model becomes the ids
that transformers makes of it, with <bos> in front. In a session only the first prompt gets the <bos>.

Several prompts are generated together, padded on the left. Each draws from a generator of its own, and leaves the
batch when its text ends. So each gets the text that it would get alone. A prompt may continue a session, and the next
prompt may continue it again. Several prompts may continue several sessions, whatever the lengths of the sessions.

Shapes: B prompts, N tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor

from miniwin.blocks import Cache
from miniwin.blocks.cache.batching import check_together, joined
from miniwin.blocks.cache.batching import row as row_of
from miniwin.generation.continuation import Continuation
from miniwin.generation.decode_step import fastest_step
from miniwin.generation.sampling import sample
from miniwin.generation.settings import Options, Settings, check_reach, checked, prompt_ids
from miniwin.generation.speculation.decoding import Guesses, Speculator
from miniwin.inference import FORWARD_TOKENS, InferenceModel, chunk_for, evaluating, in_chunks
from miniwin.sessions import Session, check_owner
from miniwin.specs import UserError

RESERVED = 4096  # new tokens, at most, that the cache reserves memory for at once
Wishes = Settings  # the former name


@dataclass(frozen=True)
class Generation:
    """What was generated, and how long it took."""

    text: str  # "" for a model without a tokenizer
    ids: list[int]  # the new ids; with a stop string only those whose text lies before it
    prompt_tokens: int
    new_tokens: int  # drawn, including those that a stop string cut off again
    ended: str  # "length", "stop", "separator" for any id that ends a text, or "interrupted"
    prefill_seconds: float
    decode_seconds: float  # of several prompts together: until this one ended
    guesses: Guesses | None = None  # with `speculate`: what came of the guesses

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of decoding; the prefill is not part of it."""
        return self.new_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


def generate(
    model: InferenceModel,
    prompt: str | Sequence[int] | Tensor,
    *,
    stream: Callable[[str], None] | None = None,
    session: Session | None = None,
    ends: Sequence[int] = (),
    going_on: Callable[[], bool] | None = None,
    **options: Unpack[Options],
) -> Generation:
    """Continue `prompt`. The same seed gives the same text; PyTorch's own random state is left alone.

    stream: called with each piece of new text as soon as the piece is certain: never half a character, never the
        beginning of a stop string. The pieces joined are the returned text.
    session: the context before the prompt. Afterwards it also holds the prompt and the new text, with a stop string if
        one was drawn. An empty prompt continues the context as it is.
    ends: ids that end the text, besides those of the model.
    going_on: asked after each new token, and while a long prompt is read; where it says no, the text ends there.

    Raises:
        UserError: a setting or the prompt is wrong, or the session is another model's.
    """
    settings = checked(model, options, stream)
    if session is not None:
        _check_sessions(model, [prompt], [session], settings.cache_dtype)
    ids = prompt_ids(model, prompt, session)
    check_reach(model, len(ids) + (0 if session is None else session.tokens), settings.max_new_tokens)
    before = ids if session is None else session.tail + ids
    row = _continuation(model, before, settings, stream, ends)
    return _run(model, [ids], [row], settings, [] if session is None else [session], going_on)[0]


def generate_batch(
    model: InferenceModel,
    prompts: Sequence[str | Sequence[int] | Tensor],
    *,
    sessions: Sequence[Session] | None = None,
    seeds: Sequence[int] | None = None,
    **options: Unpack[Options],
) -> list[Generation]:
    """Continue each of several prompts, as `generate` would with the same seed, all at once.

    seeds: one for each prompt, in place of `seed`: the same prompt twice is then continued in two ways.
    sessions: the context before each prompt. Prompts are read one by one, then decoded together on a copy of the
        caches, so that memory holds the caches twice. If the call fails, every session can still be continued.

    Raises:
        UserError: a setting or a prompt is wrong, or the sessions do not fit the model, the prompts or each other.
    """
    settings = checked(model, options)
    if settings.speculation is not None and len(prompts) > 1:
        raise UserError(f"speculate: got {len(prompts)} prompts; it is for one at a time: leave it out")
    if sessions is None:
        ids = [prompt_ids(model, prompt) for prompt in prompts]
        before = ids
    else:
        _check_sessions(model, prompts, sessions, settings.cache_dtype)
        pairs = list(zip(prompts, sessions, strict=True))
        ids = [prompt_ids(model, prompt, session) for prompt, session in pairs]
        before = [session.tail + one for one, session in zip(ids, sessions, strict=True)]
    begun = [0] * len(ids) if sessions is None else [session.tokens for session in sessions]
    for one, earlier in zip(ids, begun, strict=True):
        check_reach(model, earlier + len(one), settings.max_new_tokens)
    each = [settings] * len(before) if seeds is None else [replace(settings, seed=seed) for seed in seeds]
    rows = [_continuation(model, one, own) for one, own in zip(before, each, strict=True)]
    return _run(model, ids, rows, settings, sessions or []) if ids else []


def _continuation(
    model: InferenceModel,
    before: Sequence[int],
    settings: Settings,
    stream: Callable[[str], None] | None = None,
    ends: Sequence[int] = (),
) -> Continuation:
    most, stops, seed = settings.max_new_tokens, settings.stops, settings.seed
    return Continuation(model.tokenizer, before, most, stops, seed, stream, (*model.ends, *ends))


def _run(
    model: InferenceModel,
    prompts: list[list[int]],
    rows: list[Continuation],
    settings: Settings,
    sessions: Sequence[Session],
    going_on: Callable[[], bool] | None = None,
) -> list[Generation]:
    together = len(sessions) > 1  # decoded on a copy of the caches: a session gets its row when its text ends
    drawable = model.spec.vocab_size if model.tokenizer is None else model.tokenizer.vocab_size
    with evaluating(model):
        started = time.perf_counter()
        room = min(settings.max_new_tokens, RESERVED)
        if sessions:
            cache, logits = _continued(model, prompts, sessions, room, going_on)  # (B, 1, V)
        else:
            cache = model.new_cache(len(rows), dtype=settings.cache_dtype)
            logits = _prefill(model, prompts, cache, room, None, going_on)  # (B, 1, V)
        alone = settings.speculation is None
        fast = fastest_step(model, cache, settings.max_new_tokens, keep=bool(sessions)) if alone else None
        prefilled = time.perf_counter()
        seconds = [0.0] * len(rows)
        if going_on is not None and not going_on():
            rows[0].interrupt()
        guesses = None
        if settings.speculation is not None and not rows[0].ended:
            guesses = _speculate(model, cache, logits, prompts[0], rows[0], settings, sessions, going_on)
            seconds[0] = time.perf_counter() - prefilled
        alive = [
            i for i, row in enumerate(rows) if not row.ended
        ]  # for each row of the cache, its index in `rows`; B is len(alive)
        while alive:
            drawn: list[int] = []
            for place, i in enumerate(alive):
                token = sample(logits[place, -1, :drawable], settings.sampling, rows[i].generator)  # from (V,)
                if sessions:
                    sessions[i].append([token])
                rows[i].push(token)
                if going_on is not None and not rows[i].ended and not going_on():
                    rows[i].interrupt()
                drawn.append(token)
                if rows[i].ended:
                    seconds[i] = time.perf_counter() - prefilled
                    if together:
                        sessions[i].cache = row_of(cache, place)
                        sessions[i].consumed(len(sessions[i].pending) - 1)
            places = [place for place, i in enumerate(alive) if not rows[i].ended]
            if not places:
                break
            if len(places) < len(alive):
                cache.select(torch.tensor(places, device=model.device))  # B becomes len(places)
                alive, drawn = [alive[p] for p in places], [drawn[p] for p in places]
            new = torch.tensor(drawn, device=model.device).unsqueeze(1)  # (B, 1)
            logits = model(new, cache=cache, logits_to_keep=1) if fast is None else fast.step(new)  # (B, 1, V)
            if sessions and not together:
                sessions[0].consumed(1)
    return [
        Generation(
            row.text, row.shown_ids(), len(ids), len(row.ids), str(row.ended), prefilled - started, took, guesses
        )
        for ids, row, took in zip(prompts, rows, seconds, strict=True)
    ]


def _speculate(
    model: InferenceModel,
    cache: Cache,
    logits: Tensor,  # (1, 1, V)
    prompt: list[int],
    row: Continuation,
    settings: Settings,
    sessions: Sequence[Session],
    going_on: Callable[[], bool] | None,
) -> Guesses:
    """Decode one text with guesses, until it ends."""
    assert settings.speculation is not None
    most, session = settings.max_new_tokens, sessions[0] if sessions else None
    known = list(prompt if session is None else session.known)
    drawable = model.spec.vocab_size if model.tokenizer is None else model.tokenizer.vocab_size
    fast = fastest_step(model, cache, most)
    guessing = Speculator(model, cache, fast, settings.speculation, known, settings.sampling, drawable, most)
    guessing.run(logits, row, most, session, going_on)
    return guessing.guesses


def _continued(
    model: InferenceModel,
    prompts: list[list[int]],
    sessions: Sequence[Session],
    room: int,
    going_on: Callable[[], bool] | None = None,
) -> tuple[Cache, Tensor]:
    """(the cache to decode on, the logits after each prompt (B, 1, V)).

    The cache is that of a single session, or a copy that holds the caches of all sessions.
    """
    for session, ids in zip(sessions, prompts, strict=True):
        session.append(ids)
    if len(sessions) == 1:
        (session,) = sessions
        return session.cache, _prefill(model, [session.pending], session.cache, room, session, going_on)
    for session in sessions:
        if len(session.pending) > 1:
            _prefill(model, [session.pending[:-1]], session.cache, 0, session)
    cache = joined([session.cache for session in sessions])
    cache.reserve(cache.length + 1 + room)
    # The last id of each stays pending in its session: if this call is cut short, the session goes on from there.
    last = torch.tensor([session.pending[-1:] for session in sessions], device=model.device)  # (B, 1)
    return cache, model(last, cache=cache, logits_to_keep=1)


def _prefill(
    model: InferenceModel,
    prompts: list[list[int]],
    cache: Cache,
    room: int,
    session: Session | None = None,
    going_on: Callable[[], bool] | None = None,
) -> Tensor:
    """Read the prompts into the cache, chunk by chunk in bounded memory. Returns the logits after each (B, 1, V).

    room: how many new tokens to reserve memory for. session: is told what the cache holds, after each chunk.
    going_on: asked after each chunk; where it says no, the rest is not read.
    """
    longest = max(len(ids) for ids in prompts)
    if isinstance(cache, Cache):
        cache.reserve(cache.length + longest + room)
    tokens = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=model.device)  # (B, N)
    padding = torch.tensor([longest - len(ids) for ids in prompts], device=model.device)  # (B,)
    mask = (torch.arange(longest, device=model.device) >= padding.unsqueeze(1)).long()  # (B, N), 0: padding
    padded = any(len(ids) < longest for ids in prompts)
    size = max(1, min(chunk_for(longest), FORWARD_TOKENS // len(prompts)))
    seen = mask if padded else None
    for part, logits in in_chunks(model, tokens, cache, size, attention_mask=seen, logits_to_keep=1):  # noqa: B007
        if session is not None:
            session.consumed(part.stop - part.start)
        if going_on is not None and not going_on():
            break
    return logits


def _check_sessions(
    model: InferenceModel, prompts: Sequence[object], sessions: Sequence[Session], cache_dtype: object
) -> None:
    if sessions and cache_dtype is not None:
        raise UserError(
            f"cache_dtype: got {cache_dtype!r} with a session, whose cache has a dtype already; leave it out"
        )
    if len(sessions) != len(prompts):
        raise UserError(f"sessions: got {len(sessions)} for {len(prompts)} prompts; expected one for each")
    if len({id(session) for session in sessions}) < len(sessions):
        raise UserError("sessions: got the same session twice; expected a different one for each prompt")
    for session in sessions:
        check_owner(session, model)
    if len(sessions) > 1:
        check_together([session.cache for session in sessions])
