"""The cache of a local layer: a ring, in which a new token overwrites the token that has left the window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks.cache.first_tokens import FirstTokens
from miniwin.blocks.cache.layer_cache import LayerCache, Token, in_training, storage


class RingCache(LayerCache):
    """The last W tokens, however long the context is. Token t lies in slot t mod W, written in place."""

    def __init__(self, window: int, empty: Sequence[Tensor], first: FirstTokens | None = None) -> None:
        """empty: a tensor (B, 0, ...) for each part of an entry, with its shape, dtype and device."""
        self.window = window
        self.stored = [storage(t, window) for t in empty]
        self.length = 0
        self.first = first

    @property
    def entries(self) -> int:
        return min(self.length, self.window)

    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        n, w = new[0].shape[1], self.window
        new = tuple(tensor.to(held.dtype) for held, tensor in zip(self.stored, new, strict=True))
        if n == 1 and not in_order and not in_training(new):
            self._write(new)
            return tuple(held[:, : self.entries] for held in self.stored)
        # The earliest new query sees W - 1 keys before its own: copy them before they are overwritten.
        before = self._slots(min(self.length, w - 1), self.length)
        pieces = zip(self.stored, new, strict=True)
        out = tuple(torch.cat((*(held[:, slots] for slots in before), tensor), dim=1) for held, tensor in pieces)
        self._write(new)
        return out

    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        assert tokens == 1  # several tokens would overwrite keys that the first of them see
        self.length += tokens
        return tuple(held[:, : self.entries] for held in self.stored)

    def claims(self, tokens: int) -> bool:
        return tokens == 1

    def slot(self, token: Token) -> Token:
        return token % self.window

    def room(self, tokens: int) -> int:
        return self.window

    def overwritten(self, tokens: int) -> list[Tensor]:
        tokens_ahead = torch.arange(self.length, self.length + min(tokens, self.window), device=self.stored[0].device)
        return [held[:, self.slot(tokens_ahead)] for held in self.stored]

    def take_back(self, start: int, keep: int, overwritten: Sequence[Tensor]) -> None:
        count = min(self.length - start, self.window)
        forgotten = torch.arange(start + keep, start + max(keep, count), device=self.stored[0].device)
        for held, before in zip(self.stored, overwritten, strict=True):
            held[:, self.slot(forgotten)] = before[:, keep:count]
        super().take_back(start, keep, overwritten)

    def _write(self, new: Sequence[Tensor]) -> None:
        n = new[0].shape[1]
        self.length += n
        done = n - min(n, self.window)
        for slots in self._slots(n - done, self.length):
            end = done + slots.stop - slots.start
            for held, tensor in zip(self.stored, new, strict=True):
                held[:, slots] = tensor[:, done:end].detach()
            done = end

    def _slots(self, count: int, end: int) -> list[slice]:
        """The slots of the `count` tokens before token `end`, in order of time: one slice, or two around the end."""
        start = (end - count) % self.window
        stop = min(start + count, self.window)
        return [s for s in (slice(start, stop), slice(0, start + count - stop)) if s.stop > s.start]
