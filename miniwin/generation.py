"""Generating text: prefill the prompt through the cache in chunks, then draw one token at a time.

What comes back is the new text only, without the prompt. Generation ends after `max_new_tokens`, at a stop
string (cut off), or when the model draws the document separator (not part of the text): a document that is
over has no next token. An empty prompt starts where documents start in training: after a separator.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from miniwin.sampling import Sampling, sample
from miniwin.specs import UserError
from miniwin.stop_filter import StopFilter
from miniwin.streaming import chunk_for
from miniwin.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from miniwin.language_model import LanguageModel

CONTEXT = 16  # prompt ids the decoder of the new text sees first: some tokenizers write a start differently


@dataclass(frozen=True)
class Generation:
    """What was generated, and how long it took."""

    text: str  # "" for a model without a tokenizer
    ids: list[int]  # the new ids; with a stop string only those whose text lies before it
    prompt_tokens: int
    new_tokens: int  # drawn, including those that a stop string cut off again
    ended: str  # "length", "stop" or "separator"
    prefill_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of decoding; the prefill is not part of it."""
        return self.new_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


@torch.no_grad()
def generate(
    model: LanguageModel,
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
) -> Generation:
    """Continue `prompt`. The same seed gives the same text; PyTorch's own random state is left alone.

    `stream` is called with each piece of new text as soon as it is certain: never half a character, never the
    beginning of a stop string. The pieces joined are the returned text.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UserError(f"max_new_tokens: expected a whole number of at least 1, got {max_new_tokens!r}")
    stops = _stops(stop)
    tokenizer = model.tokenizer
    if tokenizer is None and (stops or stream):
        raise UserError(
            f"{model.ref} has no tokenizer, so it has no text to stream or stop at: leave out stream and stop"
        )
    prompt_ids = _prompt_ids(model, prompt)
    separator = None if tokenizer is None else tokenizer.separator
    drawable = model.spec.vocab_size if tokenizer is None else tokenizer.vocab_size
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)

    pieces: list[str] = []
    decoder = None if tokenizer is None else StreamDecoder(tokenizer)
    if decoder is not None:
        for token in prompt_ids[-CONTEXT:]:
            decoder.push(token)
    stop_filter = StopFilter(stops)

    def let_out(text: str) -> None:
        if text:
            pieces.append(text)
            if stream is not None:
                stream(text)

    ids: list[int] = []
    certain = [0]  # certain[i]: characters of text that the first i ids stand for
    ended = "length"
    was_training = model.training
    model.eval()
    try:
        started = time.perf_counter()
        cache = model.new_cache(1)
        tokens = torch.tensor([prompt_ids], dtype=torch.int64, device=model.device)  # (1, N)
        for chunk in tokens.split(chunk_for(len(prompt_ids)), dim=1):
            logits = model(chunk, cache=cache, logits_to_keep=1)  # (1, 1, V)
        prefilled = time.perf_counter()
        while True:
            token = sample(logits[0, -1, :drawable], sampling, generator)
            if token == separator:
                ended = "separator"
                break
            ids.append(token)
            if decoder is not None:
                new = decoder.push(token)
                certain.append(certain[-1] + len(new))
                let_out(stop_filter.push(new))
                if stop_filter.stopped:
                    break
            if len(ids) == max_new_tokens:
                break
            logits = model(torch.tensor([[token]], device=model.device), cache=cache, logits_to_keep=1)
        if decoder is not None:
            # What an end in the middle of a character leaves is not text.
            let_out(stop_filter.push(decoder.flush().rstrip("\ufffd")))
        let_out(stop_filter.flush())
        if stop_filter.stopped:
            ended = "stop"
        decoded = time.perf_counter()
    finally:
        model.train(was_training)
    drawn = len(ids)
    text = "".join(pieces)
    if ended == "stop":
        # Whole characters only: the first bytes of the stop string's first character stand for no text yet.
        ids = ids[: certain.index(certain[bisect_right(certain, len(text)) - 1])]
    return Generation(text, ids, len(prompt_ids), drawn, ended, prefilled - started, decoded - prefilled)


def _stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise UserError(f"stop: expected strings of at least one character, got {text!r}")
    return stops


def _prompt_ids(model: LanguageModel, prompt: str | Sequence[int] | Tensor) -> list[int]:
    """The prompt as a list of ids the model knows, at least one."""
    tokenizer = model.tokenizer
    if isinstance(prompt, str):
        if tokenizer is None:
            raise UserError(f"{model.ref} has no tokenizer: give the prompt as token ids instead of text")
        ids = tokenizer.encode(prompt)
    else:
        ids = _ids(prompt)
    if not ids:
        if tokenizer is None or tokenizer.separator is None:
            raise UserError(
                "the prompt is empty, and this model has no document separator to start from: give a prompt"
            )
        ids = [tokenizer.separator]
    low, high, size = min(ids), max(ids), model.spec.vocab_size
    if low < 0 or high >= size:
        raise UserError(f"prompt: expected token ids from 0 to {size - 1}, got {low if low < 0 else high}")
    return ids


def _ids(prompt: Sequence[int] | Tensor) -> list[int]:
    if isinstance(prompt, Tensor):
        if prompt.is_floating_point() or prompt.dim() not in (1, 2) or (prompt.dim() == 2 and prompt.shape[0] != 1):
            raise UserError(
                f"prompt: expected one sequence of integer ids, shape (N,) or (1, N), "
                f"got {prompt.dtype} of shape {tuple(prompt.shape)}"
            )
        return [int(token) for token in prompt.flatten().tolist()]
    ids = list(prompt)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise UserError(f"prompt: expected text or a list of integer ids, got {token!r} in the list")
    return ids
