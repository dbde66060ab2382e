"""Taking tokens back out of a cache: a guess of several tokens, checked in one call, of which only a few are kept.

    mark = Mark(cache, 4)                     # before the guess
    logits = model(guess, cache=cache)        # up to 4 tokens
    mark.rollback(keep=2)                     # as if only the first two had been said

What guesses are good for: speculative decoding (Leviathan et al., arXiv 2211.17192). A cache of everything only has to
forget its last tokens. A ring has lost what the guess was written over: a mark holds copies of that, a few tokens of
each local layer, however long the context is. It mends a cache that a failed call left halfway, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.blocks.cache import Cache, RingCache
from miniwin.blocks.spec import UserError


class Mark:
    """Where a cache stands, and the way back to it from at most so many tokens later. It may be used again."""

    def __init__(self, cache: Cache, tokens: int) -> None:
        """
        Raises:
            UserError: no tokens, or a cache that a failed call left halfway.
        """
        if tokens < 1:
            raise UserError(f"tokens: got {tokens}; expected how many may be taken back, at least 1")
        cache.check_whole()
        self.cache, self.tokens, self.rows = cache, tokens, cache.batch_size
        self.length, self.pad, self.given = cache.length, cache.pad, cache.given
        self._lost: list[list[Tensor]] = []  # of each layer, what the next tokens will be written over
        for layer in cache.layers:
            slots = self._slots(layer, 0, tokens) if isinstance(layer, RingCache) else None
            self._lost.append([] if slots is None else [held[:, slots] for held in layer.stored])

    def rollback(self, keep: int = 0) -> None:
        """Forget all tokens since the mark but the first `keep`, in all rows.

        Raises:
            UserError: there are fewer, or more than the mark allows for, or a window has lost some of those to keep.
        """
        lengths = [layer.length - self.length for layer in self.cache.layers]
        least, most = min(lengths), max(lengths)
        if self.cache.batch_size != self.rows or least < 0:
            raise UserError("the cache has lost rows, or all its tokens, since the mark was made")
        if not 0 <= keep <= least:
            raise UserError(f"keep: got {keep}; expected 0 to {least}, the tokens since the mark")
        if most > self.tokens:
            raise UserError(f"the mark was made for {self.tokens} tokens; the cache has got {most} since")
        shortest = min((layer.window for layer in self.cache.layers if isinstance(layer, RingCache)), default=most)
        if 0 < keep < most and most > shortest:
            raise UserError(
                f"keep: got {keep} of {most} tokens, which a window of {shortest} no longer has; expected 0"
            )
        length = self.length + keep
        for layer, lost in zip(self.cache.layers, self._lost, strict=True):
            if isinstance(layer, RingCache):
                count = min(layer.length - self.length, layer.window)
                slots = self._slots(layer, keep, count)
                for held, tensor in zip(layer.stored, lost, strict=True):
                    held[:, slots] = tensor[:, keep:count]
            layer.length = length
            if layer.first is not None:
                layer.first.seen = length
        self.cache.length = length
        if keep == 0:
            self.cache.pad, self.cache.given = self.pad, self.given
        elif self.cache.pad is not None:
            self.cache.pad = self.cache.pad.clamp(max=length)

    def _slots(self, ring: RingCache, first: int, end: int) -> Tensor:
        """Where the tokens `first` to `end`, counted from the mark, are written: as many as the ring has room for."""
        device = ring.stored[0].device
        end = min(end, ring.window)
        return torch.arange(self.length + first, self.length + max(first, end), device=device) % ring.window
