"""Sink tokens: the first S tokens of each row, which a windowed layer goes on seeing (attention sinks, StreamingLLM,
Xiao et al., arXiv 2309.17453, section 3.2).

A query sees the sink tokens that its window no longer holds. One difference: the article renumbers positions inside the
cache. Here a sink token keeps its own position, so prefill and decoding agree with any encoding. A rotary encoding then
sees sink tokens at distances beyond training; a periodic encoding never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from miniwin.blocks.cache.training import in_training


class FirstTokens:
    """Storage (B, S, ...) for each part of a token's entry, filled by each row's own first tokens."""

    def __init__(self, size: int, empty: Sequence[Tensor]) -> None:
        """size: S. empty: a tensor (B, 0, ...) for each part of an entry."""
        self.size = size
        self.stored = [t.new_zeros(t.shape[0], size, *t.shape[2:]) for t in empty]
        self.seen = 0  # tokens of the longest row so far

    def append(self, index: Tensor, pad: Tensor | None, before: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Add the first tokens among (B, N, ...); return all that are held, (B, S, ...). Gradients pass.

        index (1 or B, N): each token's position in its row. pad (B,): leading padding. before: tokens before this call.
        """
        batch, n = new[0].shape[:2]
        index = index.expand(batch, n)
        own = index < self.size
        if pad is not None:  # padding has position 0 too
            own = own & (torch.arange(before, before + n, device=index.device) >= pad.unsqueeze(1))
        self.seen += n
        if index.is_meta:
            return tuple(self.stored)
        training, held = in_training(new), []
        rows, columns = own.nonzero(as_tuple=True)
        slots = index[rows, columns]
        for stored, x in zip(self.stored, new, strict=True):
            entries = x[rows, columns].to(stored.dtype)
            held.append(stored.index_put((rows, slots), entries) if training else stored)
            if len(rows):
                stored[rows, slots] = entries.detach()
        return tuple(held)

    @property
    def entries(self) -> int:
        """The number of tokens that the longest row holds."""
        return min(self.seen, self.size)

    @property
    def nbytes(self) -> int:
        return sum(t.shape[0] * self.entries * prod(t.shape[2:]) * t.element_size() for t in self.stored)

    def clone(self) -> FirstTokens:
        other = FirstTokens.__new__(FirstTokens)
        other.size, other.seen, other.stored = self.size, self.seen, [t.clone() for t in self.stored]
        return other
