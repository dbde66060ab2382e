"""Decoding on a CPU for several contexts, each with a cache of its own: one new token for each of them in one step.

The matrices are read once for all contexts, in one native call (blocks/native/step.c). Nothing is padded or copied:
contexts of any lengths go together, and may join or leave between two steps.

Shapes: R contexts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks.cache import Cache
from miniwin.blocks.decode.native_decoder import Context, NativeDecoder
from miniwin.blocks.decode.native_step import declines as not_in_one_call
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.int8.weight import FEW

MOST = FEW  # contexts in one step, or tokens of one
SMALL = 1 << 22  # weights: a call of torch's operators then takes longer than what it computes


class RowsStep:
    """Advances warm caches of one row each: `step(ids, caches)` -> logits (R, V) float32.

    The kernel holds the addresses of the weights, so the model must not change meanwhile.
    """

    def __init__(self, decoder: Decoder, like: Cache) -> None:
        """like: a cache of the kind that will be stepped, of one row."""
        reason = declines(decoder, like)
        assert reason is None, reason
        self.decoder, self.native = decoder, NativeDecoder(decoder)
        sinks = (part.first for part in like.parts)
        self._first = max((first.size for first in sinks if first is not None), default=0)
        self._contexts: dict[int, Context] = {}  # of the caches of the last step, by their id
        small = sum(weight.numel() for weight in decoder.parameters()) <= SMALL
        self.few = 4 * MOST if small else MOST  # tokens that are read sooner here than by the model

    @torch.no_grad()
    def step(self, ids: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """ids: the new token of each context. caches: of one row each, without padding."""
        if any(cache.length < self._first for cache in caches):  # sink tokens are written twice
            return torch.cat([self._own_step(token, cache) for token, cache in zip(ids, caches, strict=True)])
        known = self._contexts
        # A context keeps its cache, so that no other one gets the cache's id.
        self._contexts = {id(one): known.get(id(one)) or Context(self.decoder, one) for one in caches}
        contexts, lengths = list(self._contexts.values()), [cache.length for cache in caches]
        for context in contexts:
            context.enter(1)
        new, index = torch.tensor([list(ids), lengths], device="cpu").unsqueeze(2)  # (R, 1) each
        try:
            logits = self.native.run(new, index, contexts, 1, max(lengths) + 1)
        except BaseException:
            self._contexts = {}
            raise
        for cache in caches:
            cache.length += 1  # last: an interrupted step leaves layers that are longer than the cache, which shows
        return logits

    @torch.no_grad()
    def read(self, ids: Sequence[int], cache: Cache) -> None:
        """Add tokens to one context, whose logits are not wanted."""
        if cache.length < self._first:  # sink tokens are written twice
            self.decoder(torch.tensor([list(ids)], device="cpu"), cache=cache, logits_to_keep=1)
            return
        context = self._contexts.setdefault(id(cache), Context(self.decoder, cache))
        for at in range(0, len(ids), MOST):
            some = torch.tensor([list(ids[at : at + MOST])], device="cpu")  # (1, N)
            tokens, start = some.shape[1], cache.length
            context.enter(tokens)
            try:
                index = torch.arange(start, start + tokens, device="cpu").unsqueeze(1)  # (N, 1)
                self.native.read(some, index, context, start + 1)
            except BaseException:
                context.forget()
                raise
            cache.length += tokens

    def drop(self, caches: Sequence[Cache]) -> None:
        """Let go of caches, which will not be stepped any more."""
        for cache in caches:
            self._contexts.pop(id(cache), None)

    def _own_step(self, token: int, cache: Cache) -> Tensor:
        return self.decoder(torch.tensor([[token]], device="cpu"), cache=cache)[:, 0]  # type: ignore[no-any-return]


def declines(decoder: Decoder, cache: Cache) -> str | None:
    """Why contexts such as this one cannot be stepped together here; None if they can."""
    reason = not_in_one_call(decoder, cache)
    if reason is None and any(getattr(module, "total_length", False) for module in decoder.modules()):
        return "queries are scaled by the length of their whole batch"
    return reason
