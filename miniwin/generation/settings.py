"""The settings of a generation: what a caller may set, and their checks before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypedDict

import torch
from torch import Tensor

from miniwin.generation.sampling import Sampling, is_number
from miniwin.generation.speculation.settings import Speculation, as_speculation
from miniwin.inference import InferenceModel
from miniwin.sessions import Session
from miniwin.specs import UserError

SEEDS = (-(2**63), 2**64 - 1)  # what torch's generators take


class Options(TypedDict, total=False):
    """The settings as a caller gives them, by keyword. `LanguageModel.generate` says what they mean."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stop: str | Sequence[str]
    seed: int | None
    cache_dtype: str | torch.dtype | None
    speculate: Any  # None, "lookup", a draft model or the name of one, or a Speculation


DEFAULTS: Options = {
    "max_new_tokens": 128,
    "temperature": Sampling.temperature,
    "top_k": Sampling.top_k,
    "top_p": Sampling.top_p,
    "min_p": Sampling.min_p,
    "stop": (),
    "seed": None,
    "cache_dtype": None,
    "speculate": None,
}


@dataclass(frozen=True)
class Settings:
    """Checked settings of one generation."""

    sampling: Sampling
    max_new_tokens: int
    stops: tuple[str, ...]
    seed: int | None
    cache_dtype: str | torch.dtype | None
    speculation: Speculation | None = None


def checked(model: InferenceModel, options: Options, stream: Callable[[str], None] | None = None) -> Settings:
    """The settings, with defaults where a caller gave none.

    Raises:
        TypeError: there is no such setting.
        UserError: a value is out of range, or needs a tokenizer that the model does not have.
    """
    for name in options:
        if name not in DEFAULTS:
            raise TypeError(f"generate() got an unexpected keyword argument {name!r}")
    given: Options = {**DEFAULTS, **options}
    sampling = Sampling(given["temperature"], given["top_k"], given["top_p"], given["min_p"])
    most, seed = given["max_new_tokens"], given["seed"]
    if not is_number(most, Integral) or most < 1:
        raise UserError(f"max_new_tokens: expected a whole number of at least 1, got {most!r}")
    if seed is not None and not (is_number(seed, Integral) and SEEDS[0] <= seed <= SEEDS[1]):
        raise UserError(f"seed: expected a whole number from -2**63 to 2**64 - 1, or none, got {seed!r}")
    stops = _stops(given["stop"])
    if model.tokenizer is None and (stops or stream):
        raise UserError(
            f"{model.ref} has no tokenizer, so it has no text to stream or stop at: leave out stream and stop"
        )
    guesses = as_speculation(given["speculate"], model)
    return Settings(sampling, int(most), stops, None if seed is None else int(seed), given["cache_dtype"], guesses)


def _stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    try:
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
    except TypeError:
        raise UserError(f"stop: expected a string or several, or () for none, got {stop!r}") from None
    for text in stops:
        if not isinstance(text, str) or not text:
            raise UserError(f"stop: expected strings of at least one character, got {text!r}")
    return stops


def prompt_ids(
    model: InferenceModel, prompt: str | Sequence[int] | Tensor, session: Session | None = None
) -> list[int]:
    """The prompt as ids. There is at least one, unless the session has pending ids to continue from.

    Raises:
        UserError: the prompt is neither text nor ids, or holds ids that the model does not know.
    """
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
        ids = [beginning(model)]
    low, high, size = min(ids), max(ids), model.spec.vocab_size
    if isinstance(prompt, str) and tokenizer is not None and high >= size:
        raise UserError(
            f"prompt: the token {tokenizer.decode([high])!r} has the id {high}, and this model knows the ids 0 to "
            f"{size - 1} only: leave it out"
        )
    if low < 0 or high >= size:
        raise UserError(f"prompt: expected token ids from 0 to {size - 1}, got {low if low < 0 else high}")
    return ids


def check_reach(model: InferenceModel, tokens: int, max_new_tokens: int) -> None:
    """Refuse a text that would grow beyond the model's learned positions. tokens: of context and prompt."""
    longest = model.spec.embed_positions
    if longest is None or tokens + max_new_tokens <= longest:
        return
    how = f"ask for at most {longest - tokens:,}" if tokens < longest else "shorten the prompt"
    raise UserError(
        f"max_new_tokens: got {max_new_tokens:,} after {tokens:,} tokens; {model.ref} has {longest:,} learned "
        f"positions (embed_positions), and none beyond: {how}"
    )


def beginning(model: InferenceModel) -> int:
    """The id that an empty prompt starts with: an imported model's <bos>, or else the document separator."""
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
