"""Generating text: prefill the prompt through the cache in chunks, then draw one token at a time.

What comes back is the new text only, without the prompt. Generation ends after `max_new_tokens`, at a stop
string (cut off), or when the model draws the document separator (not part of the text): a document that is
over has no next token. An imported model ends at every id that its files call an end, such as <|eot_id|>. An empty
prompt starts where documents start in training: after a separator. A prompt of an imported model is the ids that
transformers makes of it, <bos> included; within a session only the first one is.

Several prompts are generated together, padded on the left; each draws from a generator of its own and leaves the
batch when it ends, so that it gets the text that it would get alone. A prompt may continue a session, and leaves it
where the next one can go on; several prompts may continue several sessions, whatever their lengths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from miniwin.blocks import Cache
from miniwin.blocks.joined import check_together, joined
from miniwin.blocks.joined import row as row_of
from miniwin.continuation import Continuation
from miniwin.inference import FORWARD_TOKENS, InferenceModel, chunk_for, evaluating, in_chunks
from miniwin.sampling import Sampling, is_number, sample
from miniwin.sessions import Session, check_owner
from miniwin.specs import UserError
from miniwin.steps import quicker

RESERVED = 4096  # new tokens at most that room is made for at once
SEEDS = (-(2**63), 2**64 - 1)  # what torch's generators take


@dataclass(frozen=True)
class Generation:
    """What was generated, and how long it took."""

    text: str  # "" for a model without a tokenizer
    ids: list[int]  # the new ids; with a stop string only those whose text lies before it
    prompt_tokens: int
    new_tokens: int  # drawn, including those that a stop string cut off again
    ended: str  # "length", "stop" or "separator", which any id that ends a text is
    prefill_seconds: float
    decode_seconds: float  # of several prompts together: until this one ended

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of decoding; the prefill is not part of it."""
        return self.new_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Wishes:
    """Checked settings of one generation."""

    sampling: Sampling
    max_new_tokens: int
    stops: tuple[str, ...]
    seed: int | None


def generate(
    model: InferenceModel,
    prompt: str | Sequence[int] | Tensor,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: str | Sequence[str] = (),
    seed: int | None = None,
    stream: Callable[[str], None] | None = None,
    cache_dtype: str | torch.dtype | None = None,
    session: Session | None = None,
) -> Generation:
    """Continue `prompt`. The same seed gives the same text; PyTorch's own random state is left alone.

    `stream` is called with each piece of new text as soon as it is certain: never half a character, never the
    beginning of a stop string. The pieces joined are the returned text. `cache_dtype`: what the cache stores.
    `session`: what was said before; it goes on with the prompt and the new text (a stop string that was drawn
    included), and an empty prompt continues it as it is.
    """
    wishes = _wishes(model, max_new_tokens, temperature, top_k, top_p, min_p, stop, seed, stream)
    if session is not None:
        _check_sessions(model, [prompt], [session], cache_dtype)
    ids = _prompt_ids(model, prompt, session)
    before = ids if session is None else session.tail + ids
    row = Continuation(model.tokenizer, before, wishes.max_new_tokens, wishes.stops, wishes.seed, stream, model.ends)
    return _run(model, [ids], [row], wishes, cache_dtype, [] if session is None else [session])[0]


def generate_batch(
    model: InferenceModel,
    prompts: Sequence[str | Sequence[int] | Tensor],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: str | Sequence[str] = (),
    seed: int | None = None,
    cache_dtype: str | torch.dtype | None = None,
    sessions: Sequence[Session] | None = None,
) -> list[Generation]:
    """Continue each of several prompts, as `generate` would with the same seed, all at once.

    sessions: one for each prompt, what was said before it. They are read one by one and then decoded together, on a
    copy of their caches: until it ends, memory holds them twice. Whatever happens, each remains one to go on with.
    """
    wishes = _wishes(model, max_new_tokens, temperature, top_k, top_p, min_p, stop, seed, None)
    if sessions is None:
        ids = [_prompt_ids(model, prompt) for prompt in prompts]
        before = ids
    else:
        _check_sessions(model, prompts, sessions, cache_dtype)
        pairs = list(zip(prompts, sessions, strict=True))
        ids = [_prompt_ids(model, prompt, session) for prompt, session in pairs]
        before = [session.tail + one for one, session in zip(ids, sessions, strict=True)]
    most, seed = wishes.max_new_tokens, wishes.seed
    rows = [Continuation(model.tokenizer, one, most, wishes.stops, seed, None, model.ends) for one in before]
    return _run(model, ids, rows, wishes, cache_dtype, sessions or []) if ids else []


def _run(
    model: InferenceModel,
    prompts: list[list[int]],
    rows: list[Continuation],
    wishes: Wishes,
    cache_dtype: str | torch.dtype | None,
    sessions: Sequence[Session],
) -> list[Generation]:
    together = len(sessions) > 1  # what is drawn is then not in a session's own cache before its text has ended
    drawable = model.spec.vocab_size if model.tokenizer is None else model.tokenizer.vocab_size
    with evaluating(model):
        started = time.perf_counter()
        room = min(wishes.max_new_tokens, RESERVED)
        if sessions:
            cache, logits = _continued(model, prompts, sessions, room)
        else:
            options = {} if cache_dtype is None else {"dtype": cache_dtype}
            cache = model.new_cache(len(rows), **options)
            logits = _prefill(model, prompts, cache, room)  # (B, 1, V)
        steps = quicker(model, cache, wishes.max_new_tokens, keep=bool(sessions))
        prefilled = time.perf_counter()
        seconds = [0.0] * len(rows)
        alive = list(range(len(rows)))  # which row each row of the cache is
        while True:
            drawn: list[int] = []
            for place, i in enumerate(alive):
                token = sample(logits[place, -1, :drawable], wishes.sampling, rows[i].generator)
                if sessions:
                    sessions[i].say([token])
                rows[i].push(token)
                drawn.append(token)
                if rows[i].ended:
                    seconds[i] = time.perf_counter() - prefilled
                    if together:
                        sessions[i].cache = row_of(cache, place)
                        sessions[i].heard(len(sessions[i].pending) - 1)
            places = [place for place, i in enumerate(alive) if not rows[i].ended]
            if not places:
                break
            if len(places) < len(alive):
                cache.select(torch.tensor(places, device=model.device))
                alive, drawn = [alive[p] for p in places], [drawn[p] for p in places]
            new = torch.tensor(drawn, device=model.device).unsqueeze(1)  # (B, 1)
            logits = model(new, cache=cache, logits_to_keep=1) if steps is None else steps.step(new)
            if sessions and not together:
                sessions[0].heard(1)
    return [
        Generation(row.text, row.shown_ids(), len(ids), len(row.ids), str(row.ended), prefilled - started, took)
        for ids, row, took in zip(prompts, rows, seconds, strict=True)
    ]


def _continued(
    model: InferenceModel, prompts: list[list[int]], sessions: Sequence[Session], room: int
) -> tuple[Cache, Tensor]:
    """The cache to decode on, the only session's own or a copy of all of them, and the logits after each prompt."""
    for session, ids in zip(sessions, prompts, strict=True):
        session.say(ids)
    if len(sessions) == 1:
        (session,) = sessions
        return session.cache, _prefill(model, [session.pending], session.cache, room, session)
    for session in sessions:
        if len(session.pending) > 1:
            _prefill(model, [session.pending[:-1]], session.cache, 0, session)
    cache = joined([session.cache for session in sessions])
    cache.reserve(cache.length + 1 + room)
    # Their last ids are not heard by themselves: were this call cut short, each could go on from its own.
    last = torch.tensor([session.pending[-1:] for session in sessions], device=model.device)
    return cache, model(last, cache=cache, logits_to_keep=1)


def _prefill(
    model: InferenceModel, prompts: list[list[int]], cache: Cache, room: int, session: Session | None = None
) -> Tensor:
    """The logits after each prompt (B, 1, V), all of them in the cache, memory bounded by a chunk.

    room: new tokens that a place is kept for.
    """
    longest = max(len(ids) for ids in prompts)
    if isinstance(cache, Cache):
        cache.reserve(cache.length + longest + room)
    tokens = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=model.device)  # (B, N)
    padding = torch.tensor([longest - len(ids) for ids in prompts], device=model.device)
    mask = (torch.arange(longest, device=model.device) >= padding.unsqueeze(1)).long()
    padded = any(len(ids) < longest for ids in prompts)
    size = max(1, min(chunk_for(longest), FORWARD_TOKENS // len(prompts)))
    seen = mask if padded else None
    for part, logits in in_chunks(model, tokens, cache, size, attention_mask=seen, logits_to_keep=1):  # noqa: B007
        if session is not None:
            session.heard(part.stop - part.start)
    return logits


def _check_sessions(
    model: InferenceModel, prompts: Sequence[object], sessions: Sequence[Session], cache_dtype: object
) -> None:
    if sessions and cache_dtype is not None:
        raise UserError(f"cache_dtype: got {cache_dtype!r} with a session, whose cache has its dtype: leave it out")
    if len(sessions) != len(prompts):
        raise UserError(f"sessions: got {len(sessions)} for {len(prompts)} prompts; expected one for each")
    if len({id(session) for session in sessions}) < len(sessions):
        raise UserError("sessions: got one of them twice; expected another one for each prompt")
    for session in sessions:
        check_owner(session, model)
    if len(sessions) > 1:
        check_together([session.cache for session in sessions])


def _wishes(
    model: InferenceModel,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    stop: str | Sequence[str],
    seed: int | None,
    stream: Callable[[str], None] | None,
) -> Wishes:
    sampling = Sampling(temperature, top_k, top_p, min_p)
    if not is_number(max_new_tokens, Integral) or max_new_tokens < 1:
        raise UserError(f"max_new_tokens: expected a whole number of at least 1, got {max_new_tokens!r}")
    if seed is not None and not (is_number(seed, Integral) and SEEDS[0] <= seed <= SEEDS[1]):
        raise UserError(f"seed: expected a whole number from -2**63 to 2**64 - 1, or none, got {seed!r}")
    stops = _stops(stop)
    if model.tokenizer is None and (stops or stream):
        raise UserError(
            f"{model.ref} has no tokenizer, so it has no text to stream or stop at: leave out stream and stop"
        )
    return Wishes(sampling, int(max_new_tokens), stops, None if seed is None else int(seed))


def _stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    try:
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
    except TypeError:
        raise UserError(f"stop: expected a string or several, or () for none, got {stop!r}") from None
    for text in stops:
        if not isinstance(text, str) or not text:
            raise UserError(f"stop: expected strings of at least one character, got {text!r}")
    return stops


def _prompt_ids(
    model: InferenceModel, prompt: str | Sequence[int] | Tensor, session: Session | None = None
) -> list[int]:
    """The prompt as a list of ids the model knows, at least one unless it continues what the session has said."""
    tokenizer = model.tokenizer
    if isinstance(prompt, str):
        if tokenizer is None:
            raise UserError(f"{model.ref} has no tokenizer: give the prompt as token ids instead of text")
        ids = tokenizer.encode_prompt(prompt, begins=session is None or session.tokens == 0)
    else:
        ids = _ids(prompt)
    if not ids:
        if session is not None and session.pending:
            return []
        ids = [_beginning(model)]
    low, high, size = min(ids), max(ids), model.spec.vocab_size
    if isinstance(prompt, str) and tokenizer is not None and high >= size:
        raise UserError(
            f"prompt: the token {tokenizer.decode([high])!r} has the id {high}, and this model knows the ids 0 to "
            f"{size - 1} only: leave it out"
        )
    if low < 0 or high >= size:
        raise UserError(f"prompt: expected token ids from 0 to {size - 1}, got {low if low < 0 else high}")
    return ids


def _beginning(model: InferenceModel) -> int:
    """The id that a text from nothing follows."""
    bos = None if model.special is None else model.special.bos
    separator = None if model.tokenizer is None else model.tokenizer.separator
    first = separator if bos is None else bos
    if first is None:
        raise UserError("the prompt is empty, and this model has no document separator to start from: give a prompt")
    return first


def _ids(prompt: Sequence[int] | Tensor) -> list[int]:
    if isinstance(prompt, Tensor):
        if prompt.is_floating_point() or prompt.dim() not in (1, 2) or (prompt.dim() == 2 and prompt.shape[0] != 1):
            raise UserError(
                f"prompt: expected one sequence of integer ids, shape (N,) or (1, N), "
                f"got {prompt.dtype} of shape {tuple(prompt.shape)}"
            )
        return [int(token) for token in prompt.flatten().tolist()]
    try:
        ids = list(prompt)
    except TypeError:
        raise UserError(f"prompt: expected text or a list of integer ids, got {prompt!r}") from None
    for token in ids:
        if not is_number(token, Integral):
            raise UserError(f"prompt: expected text or a list of integer ids, got {token!r} in the list")
    return [int(token) for token in ids]
