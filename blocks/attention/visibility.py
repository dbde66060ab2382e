"""Which keys a query sees, and the cache that holds enough of them.

global        every key up to itself
window W      0 <= i - j < W                      sliding window: W keys, itself included
chunk C       j <= i and i // C = j // C          block-local (Llama 4): all of its own chunk so far
keep_first S  beside a window: the row's first S tokens too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from miniwin.blocks.cache import GrowingCache, LayerCache, RingCache
from miniwin.blocks.cache.first_tokens import FirstTokens


@dataclass(frozen=True)
class Visibility:
    """At most one of window and chunk; keep_first only beside a window."""

    window: int | None = None
    chunk: int | None = None
    keep_first: int = 0

    @property
    def reach(self) -> int | None:
        """Tokens back from a query, itself included, that it may see at most (kept first ones aside); None is all."""
        return self.window if self.chunk is None else self.chunk

    def visible(self, index: Tensor) -> Tensor:
        """How many keys the query at each position sees, itself included; index and result (1 or B, N) int64."""
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
        """empty: a tensor (B, 0, ...) for each thing kept of a token."""
        if self.reach is None:
            return GrowingCache(empty)
        return RingCache(self.reach, empty, self.first_tokens(empty))

    def first_tokens(self, empty: Sequence[Tensor]) -> FirstTokens | None:
        return FirstTokens(self.keep_first, empty) if self.keep_first else None

    def entries(self, length: int) -> int:
        """Tokens held after `length` of them; a first token still in the window is held twice."""
        return length if self.reach is None else min(self.reach, length) + min(self.keep_first, length)
