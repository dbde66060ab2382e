"""The cache of a local layer: a ring, in which a new token overwrites the token that has left the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from miniwin.blocks.cache.first_tokens import FirstTokens
from miniwin.blocks.cache.layer_cache import LayerCache, Token, storage
from miniwin.blocks.cache.training import in_training


class RingCache(LayerCache):
    """The last W tokens, however long the context is. Token t lies in slot t mod W, written in place.

    Sink tokens lie behind the W slots in the same storage, so that one new token reads both as one.
    """

    def __init__(self, window: int, empty: Sequence[Tensor], first: FirstTokens | None = None) -> None:
        """empty: a tensor (B, 0, ...) for each part of an entry, with its shape, dtype and device."""
        self.window = window
        self.stored = [storage(t, window) for t in empty]
        self.length = 0
        self.first = first
        self._join()

    def _join(self) -> None:
        """One storage for the ring and the sink tokens: slots 0 .. W-1, and from W on."""
        self._joint = self.stored
        if self.first is None:
            return
        self._joint = [storage(t[:, :0], self.window + self.first.size) for t in self.stored]
        for joint, ring, first in zip(self._joint, self.stored, self.first.stored, strict=True):
            joint[:, : self.window], joint[:, self.window :] = ring, first
        self.stored = [joint[:, : self.window] for joint in self._joint]
        self.first.stored = [joint[:, self.window :] for joint in self._joint]

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

    def append_seen(self, *new: Tensor) -> tuple[Tensor, ...] | None:
        if self.first is None or new[0].shape[1] > 1 or in_training(new):
            return None
        if self.length < self.first.size:
            for held, tensor in zip(self.first.stored, new, strict=True):
                held[:, self.length] = tensor[:, 0]
        self._write(new)
        self.first.seen = self.length
        return tuple(held[:, : self.in_sight()] for held in self._joint)

    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        assert tokens == 1  # several tokens would overwrite keys that the first of them see
        self.set_length(self.length + tokens)
        return tuple(held[:, : self.entries] for held in self.stored)

    def claims(self, tokens: int) -> bool:
        return tokens == 1

    def slot(self, token: Token) -> Token:
        return token % self.window

    def room(self, tokens: int) -> int:
        return self.window

    def in_sight(self, padding: int = 0) -> int:
        first = 0 if self.first is None else self.first.size
        return self.entries + max(0, min(self.length - padding - self.window, first))

    def overwritten(self, tokens: int) -> list[Tensor]:
        tokens_ahead = torch.arange(self.length, self.length + min(tokens, self.window), device=self.stored[0].device)
        return [held[:, self.slot(tokens_ahead)] for held in self.stored]

    def take_back(self, start: int, keep: int, overwritten: Sequence[Tensor]) -> None:
        count = min(self.length - start, self.window)
        forgotten = torch.arange(start + keep, start + max(keep, count), device=self.stored[0].device)
        for held, before in zip(self.stored, overwritten, strict=True):
            held[:, self.slot(forgotten)] = before[:, keep:count]
        super().take_back(start, keep, overwritten)

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self._join()

    def over(self, stored: list[Tensor], first: FirstTokens | None) -> Self:
        other = super().over(stored, first)
        other._join()
        return other

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
