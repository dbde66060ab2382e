"""Which keys a query sees, and the cache that holds enough of them.

For a query at position i and a key at position j:

global        j <= i                              every key so far
window W      0 <= i - j < W                      sliding window: W keys, the query's own included
chunk C       j <= i and i // C = j // C          block-local (Llama 4): the keys of its own chunk so far
keep_first S  j < S, in addition to a window      sink tokens: the row's first S tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from miniwin.blocks.cache import GrowingCache, LayerCache, RingCache
from miniwin.blocks.cache.first_tokens import FirstTokens


@dataclass(frozen=True)
class Visibility:
    """At most one of window and chunk is set; keep_first only together with a window."""

    window: int | None = None
    chunk: int | None = None
    keep_first: int = 0

    @property
    def reach(self) -> int | None:
        """The most keys that a query sees, its own included and sink tokens aside; None: all so far."""
        return self.window if self.chunk is None else self.chunk

    def count_visible(self, index: Tensor) -> Tensor:
        """Positions of queries -> numbers of keys that they see, their own included: both (1 or B, N) int64."""
        if self.chunk is not None:
            return index % self.chunk + 1
        if self.window is None:
            return index + 1
        return (index + 1).clamp(max=self.window) + (index + 1 - self.window).clamp(min=0, max=self.keep_first)

    def mean_visible(self, length: int) -> float:
        """The mean of `visible` over the first `length` positions."""
        if self.chunk is not None:
            whole, rest = divmod(length, self.chunk)
            return (whole * self.chunk * (self.chunk + 1) + rest * (rest + 1)) / 2 / length
        w = length if self.window is None else min(self.window, length)
        s = min(self.keep_first, length - w)
        return (w * (w + 1) / 2 + (length - w) * w + s * (s + 1) / 2 + (length - w - s) * s) / length

    def new_cache(self, empty: Sequence[Tensor]) -> LayerCache:
        """An empty cache that holds enough keys. empty: a tensor (B, 0, ...) for each part of a token's entry."""
        if self.reach is None:
            return GrowingCache(empty)
        return RingCache(self.reach, empty, self.first_tokens(empty))

    def first_tokens(self, empty: Sequence[Tensor]) -> FirstTokens | None:
        return FirstTokens(self.keep_first, empty) if self.keep_first else None

    def entries(self, length: int) -> int:
        """The number of tokens in the cache after `length` tokens. A sink token in the window is held twice."""
        return length if self.reach is None else min(self.reach, length) + min(self.keep_first, length)
