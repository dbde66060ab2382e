"""Taking tokens back out of a cache: a guess of several tokens, checked in one call, of which only a few are kept.

    mark = Mark(cache, 4)                     # before the guess
    logits = model(guess, cache=cache)        # up to 4 tokens
    mark.rollback(keep=2)                     # as if only the first two had been said

What guesses are good for: speculative decoding (Leviathan et al., arXiv 2211.17192). A cache of everything only has to
forget its last tokens. A ring has lost what the guess was written over: a mark holds copies of that, a few tokens of
each local layer, however long the context is. It mends a cache that a failed call left halfway, too.
"""

from __future__ import annotations

from miniwin.blocks.cache.decoder_cache import Cache
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
        self._overwritten = [layer.overwritten(tokens) for layer in cache.layers]

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
        shortest = min(layer.room(most) for layer in self.cache.layers)
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
