"""The first S tokens of each row, kept in sight of a windowed layer (attention sinks, StreamingLLM, Xiao et al.,
arXiv 2309.17453, section 3.2).

A query that has moved on so far that its window no longer holds such a token goes on seeing it. Where we deviate: the
article renumbers positions inside the cache; here a kept key keeps its own position, so that prefill and decoding agree
with any encoding. With a rotary encoding they are then seen at distances beyond training; with a periodic one, never.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


class FirstTokens:
    """Storage (B, S, ...) of each thing kept of a token, filled by each row's own first tokens."""

    def __init__(self, size: int, empty: Sequence[Tensor]) -> None:
        """empty: a tensor (B, 0, ...) for each thing kept."""
        self.size = size
        self.stored = [t.new_zeros(t.shape[0], size, *t.shape[2:]) for t in empty]
        self.seen = 0  # tokens of the longest row so far

    def append(self, index: Tensor, pad: Tensor | None, before: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Put in the first tokens among (B, N, ...), gradients kept, and give back all that are held (B, S, ...).

        index (1 or B, N): each token's position in its row. pad (B,): leading padding. before: tokens before these.
        """
        batch, n = new[0].shape[:2]
        index = index.expand(batch, n)
        own = index < self.size
        if pad is not None:  # padding stands at position 0 too
            own = own & (torch.arange(before, before + n, device=index.device) >= pad.unsqueeze(1))
        self.seen += n
        held = self.stored
        if index.is_meta:
            return tuple(held)
        rows, columns = own.nonzero(as_tuple=True)
        if len(rows):
            slots = index[rows, columns]
            held = [t.index_put((rows, slots), x[rows, columns].to(t.dtype)) for t, x in zip(held, new, strict=True)]
            self.stored = [t.detach() for t in held]
        return tuple(held)

    @property
    def entries(self) -> int:
        """How many tokens the longest row holds."""
        return min(self.seen, self.size)

    @property
    def nbytes(self) -> int:
        return sum(t.shape[0] * self.entries * prod(t.shape[2:]) * t.element_size() for t in self.stored)

    def clone(self) -> FirstTokens:
        other = FirstTokens.__new__(FirstTokens)
        other.size, other.seen, other.stored = self.size, self.seen, [t.clone() for t in self.stored]
        return other
