"""What a caller may ask of speculative decoding, and the checks before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Integral
from os import PathLike, fspath
from typing import Any

import torch
from torch import nn

from miniwin.blocks.cache import Cache
from miniwin.blocks.decode.graph_step import counts_keys
from miniwin.generation.sampling import is_number
from miniwin.inference import InferenceModel
from miniwin.specs import UserError

LOOKUP = "lookup"
TOKENS = 16  # guessed at once, at most
MOST = 64


@dataclass(frozen=True)
class Speculation:
    """Who guesses, and how many tokens at once.

    draft: "lookup" takes guesses from the text so far; otherwise a smaller model with the same tokenizer, or the zoo
        name, run folder or entry folder of one.
    tokens: the most tokens that are guessed at once. Fewer are where guesses turn out wrong.
    """

    draft: Any = LOOKUP  # "lookup", a reference, or an InferenceModel
    tokens: int = TOKENS

    def __post_init__(self) -> None:
        if not is_number(self.tokens, Integral) or not 1 <= self.tokens <= MOST:
            raise UserError(f"draft tokens: expected a whole number from 1 to {MOST}, got {self.tokens!r}")
        object.__setattr__(self, "tokens", int(self.tokens))
        if isinstance(self.draft, PathLike):
            object.__setattr__(self, "draft", fspath(self.draft))
        named = isinstance(self.draft, str) and bool(self.draft.strip())
        if not named and not (isinstance(self.draft, nn.Module) and hasattr(self.draft, "decoder")):
            raise UserError(f"speculate: expected {LOOKUP!r}, a model or the name of one, got {self.draft!r}")

    @property
    def looks_up(self) -> bool:
        return isinstance(self.draft, str) and self.draft == LOOKUP


def as_speculation(given: object, model: InferenceModel) -> Speculation | None:
    """What `speculate` asks for. A draft that is named is loaded, onto the device of `model`.

    Raises:
        UserError: it is nothing of the kind, there is no such draft, or the draft does not fit the model.
    """
    if given is None:
        return None
    made = given if isinstance(given, Speculation) else Speculation(given)
    for attention in model.decoder.attentions:
        if attention.scales_queries and counts_keys(attention):
            raise UserError(
                f"speculate: {model.ref} scales queries by the length at hand, so several tokens in one pass are not "
                "what they are one by one; leave speculate out"
            )
    if made.looks_up:
        return made
    if isinstance(made.draft, str):
        # By name: loading stands above generation.
        made = replace(made, draft=import_module("miniwin.loading").load(made.draft, device=model.device))
    _check_draft(made.draft, model)
    return made


def shortest_window(caches: Iterable[Cache]) -> int:
    """The fewest tokens that a window of the caches holds: so many can be taken back in part."""
    return min(part.room(torch.iinfo(torch.int64).max) for cache in caches for part in cache.parts)


def _check_draft(draft: InferenceModel, model: InferenceModel) -> None:
    mine, theirs = model.tokenizer, draft.tokenizer
    if (None if mine is None else mine.identity) != (None if theirs is None else theirs.identity):
        names = ["no tokenizer" if one is None else one.name for one in (theirs, mine)]
        raise UserError(
            f"speculate: the draft {draft.ref} has {names[0]}, and {model.ref} has {names[1]}; expected a draft with "
            "the same tokenizer, or lookup"
        )
    if draft.spec.vocab_size < model.spec.vocab_size:
        raise UserError(
            f"speculate: the draft {draft.ref} knows {draft.spec.vocab_size:,} ids, and {model.ref} "
            f"{model.spec.vocab_size:,}; expected at least as many"
        )
    if draft is model:
        raise UserError("speculate: the draft is the model itself, which is no faster; give a smaller one, or lookup")
