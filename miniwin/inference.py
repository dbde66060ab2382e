"""What inference needs of a model, and the shape of its forward passes: chunk by chunk, in bounded memory.

Generation, sessions and evaluation are written for an `InferenceModel`, and `LanguageModel` is one.

Shapes: B rows, N tokens, C chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from miniwin.blocks import Cache, Decoder
from miniwin.specs import ModelSpec
from miniwin.tokenizer.interface import Tokenizer
from miniwin.tokenizer.special_ids import SpecialIds

WHOLE = 4096  # a context of up to this length takes one pass: a causal pass from the start needs no mask
CHUNK = 1024  # tokens in one pass of a longer context; no attention backend builds their mask against all keys
FORWARD_TOKENS = 8192  # tokens in one forward pass, all windows together
FORWARD_LOGITS = 2**26  # logits in one forward pass: 256 MiB of float32
CACHE_BYTES = 2**29  # caches of the windows that are streamed at once

Advance = Callable[[int], object]  # called with the number of tokens just done
Task = Callable[[str, int], Advance]  # begins a part of the work, given its name and its number of tokens


class InferenceModel(Protocol):
    """A decoder with its spec and its tokenizer. Calling it gives logits."""

    decoder: Decoder
    spec: ModelSpec
    tokenizer: Tokenizer | None
    special: SpecialIds | None
    ref: str

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a text."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def new_cache(self, batch_size: int = 1, *, dtype: str | torch.dtype | None = None) -> Cache: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def eval(self) -> object: ...

    @property
    def __call__(self) -> Callable[..., Any]:
        """(input_ids (B, N), cache, attention_mask (B, N), logits_to_keep) -> logits (B, N or kept, V)"""


Forward = TypeVar("Forward", bound=Callable[..., Any])
_PLAIN: set[object] = {Decoder.forward}


def only_calls_the_decoder(forward: Forward) -> Forward:
    """Decorates a model's forward that only calls its decoder: decoding may then call the decoder directly."""
    _PLAIN.add(forward)
    return forward


def has_plain_forward(model: nn.Module | InferenceModel) -> bool:
    """Whether the forward of the model's class only calls the decoder. An override may do more."""
    return getattr(type(model), "forward", None) in _PLAIN


@contextmanager
def evaluating(model: InferenceModel) -> Iterator[None]:
    """In eval mode and without gradients. Afterwards each module is back in its former mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Not inference_mode: tables that a block builds on first use must stay usable in training.
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:  # a module comes before its parts, whose modes its train() sets too
            if module.training != mode:
                module.train(mode)


def chunk_for(length: int) -> int:
    """Tokens to feed in one pass on the way to a context of `length`."""
    return length if length <= WHOLE else CHUNK


def rows_at_once(model: InferenceModel, length: int, chunk: int) -> int:
    """How many windows of `length` tokens to feed side by side, at least 1, within the bounds at the top."""
    rows = min(FORWARD_TOKENS // chunk, FORWARD_LOGITS // (chunk * model.spec.vocab_size))
    if length > chunk:
        rows = min(rows, CACHE_BYTES // max(model.spec.cache_bytes(length), 1))
    return max(rows, 1)


def in_chunks(
    model: InferenceModel,
    ids: Tensor,  # (B, N)
    cache: Cache | None,  # None where one chunk takes all
    chunk: int,
    *,
    attention_mask: Tensor | None = None,  # (B, N)
    logits_to_keep: int | Callable[[slice], int] = 0,  # of a chunk: its last k positions; 0: all
) -> Iterator[tuple[slice, Tensor]]:
    """Feed `ids` through the cache. Yields, for each chunk, its place in N and its logits (B, C or kept, V)."""
    for start in range(0, ids.shape[1], chunk):
        part = slice(start, min(start + chunk, ids.shape[1]))
        keep = logits_to_keep if isinstance(logits_to_keep, int) else logits_to_keep(part)
        mask = None if attention_mask is None else attention_mask[:, part]
        yield part, model(ids[:, part], cache=cache, attention_mask=mask, logits_to_keep=keep)
