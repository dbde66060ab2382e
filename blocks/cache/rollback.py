"""Take tokens back out of a cache, such as guessed tokens that were checked in one call and found wrong.

    mark = Mark(cache, 4)                     # before the guess
    logits = model(guess, cache=cache)        # up to 4 tokens
    mark.rollback(keep=2)                     # as if the call had had the first two tokens only

Speculative decoding needs this (Leviathan et al., arXiv 2211.17192). A growing cache only forgets its last tokens. A
ring has lost the entries that the guess was written over. A mark holds copies of these: a few tokens for each local
layer, however long the context is. A mark also repairs a cache that a failed call left halfway.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from miniwin.blocks.cache.decoder_cache import Cache
from miniwin.blocks.spec import UserError


class Mark:
    """A state of a cache to go back to, from at most `tokens` tokens later. A mark may be used several times."""

    def __init__(self, cache: Cache, tokens: int) -> None:
        """
        Raises:
            UserError: `tokens` is less than 1, or a failed call left the cache halfway.
        """
        if tokens < 1:
            raise UserError(f"tokens: got {tokens}; expected how many may be taken back, at least 1")
        cache.check_whole()
        self.cache, self.tokens, self.rows = cache, tokens, cache.batch_size
        self.length, self.pad, self.given = cache.length, cache.pad, cache.given
        self._overwritten = [layer.overwritten(tokens) for layer in cache.layers]

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return _bytes(self._overwritten)

    def rollback(self, keep: int = 0) -> None:
        """Forget all tokens since the mark except the first `keep`, in all rows.

        Raises:
            UserError: fewer than `keep` tokens came since the mark, or more than the mark is for; the cache has lost
                rows since; or a window has lost some of the tokens to keep.
        """
        lengths = [part.length - self.length for part in self.cache.parts]
        least, most = min(lengths), max(lengths)
        if self.cache.batch_size != self.rows or least < 0:
            raise UserError("the cache has lost rows, or all its tokens, since the mark was made")
        if not 0 <= keep <= least:
            raise UserError(f"keep: got {keep}; expected 0 to {least}, the tokens since the mark")
        if most > self.tokens:
            raise UserError(f"the mark was made for {self.tokens} tokens; the cache has got {most} since")
        shortest = min(part.room(most) for part in self.cache.parts)
        if 0 < keep < most and most > shortest:
            raise UserError(
                f"keep: got {keep} of {most} tokens, which a window of {shortest} no longer has; expected 0"
            )
        length = self.length + keep
        for layer, overwritten in zip(self.cache.layers, self._overwritten, strict=True):
            layer.take_back(self.length, keep, overwritten)
        self.cache.length = length
        if keep == 0:
            self.cache.pad, self.cache.given = self.pad, self.given
        elif self.cache.pad is not None:
            self.cache.pad = self.cache.pad.clamp(max=length)


def _bytes(copies: Any) -> int:
    """Of tensors in lists in lists: a layer whose heads see differently has a list for each part."""
    return copies.nbytes if isinstance(copies, Tensor) else sum(map(_bytes, copies))
