"""Caches of what a layer keeps for each token: its key, its value, and whatever else its attention asks for.

    append(k, v, ...) -> the same in order of time, earlier tokens first, whose last N are the ones just given

A ring of W entries for a local layer, growing preallocated storage for a global one. Keys are stored as they are scored
(already rotated), so nothing is ever rotated again. What a cache stores is detached: gradients reach the tokens of a
call, never those of an earlier one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Self

import torch
from torch import Tensor

from miniwin.blocks.first_tokens import FirstTokens


class LayerCache(ABC):
    """Storage of one layer. stored: one tensor (B, capacity, ...) for each thing kept of a token, keys first."""

    stored: list[Tensor]
    length: int  # tokens seen so far
    first: FirstTokens | None = None  # a layer's first tokens, where it keeps them in sight

    @abstractmethod
    def append(self, *new: Tensor) -> tuple[Tensor, ...]:
        """Add (B, N, ...) of each thing; give back what the N new queries may need, (B, M, ...), M >= N."""

    def reset(self) -> None:
        """Forget every token; the storage stays."""
        self.length = 0
        if self.first is not None:
            self.first.reset()

    @property
    @abstractmethod
    def entries(self) -> int:
        """How many tokens are held."""

    @property
    def nbytes(self) -> int:
        """Bytes of the entries held."""
        held = sum(t.shape[0] * self.entries * prod(t.shape[2:]) * t.element_size() for t in self.stored)
        return held + (0 if self.first is None else self.first.nbytes)

    def clone(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.stored = [t.clone() for t in self.stored]
        other.first = None if self.first is None else self.first.clone()
        return other


class RingCache(LayerCache):
    """The last W tokens, whatever the context: token t lies in slot t mod W, written in place."""

    def __init__(self, window: int, empty: Sequence[Tensor], first: FirstTokens | None = None) -> None:
        """empty: a tensor (B, 0, ...) for each thing kept, for its batch size, shape, dtype and device."""
        self.window = window
        self.stored = [t.new_zeros(t.shape[0], window, *t.shape[2:]) for t in empty]
        self.length = 0
        self.first = first

    @property
    def entries(self) -> int:
        return min(self.length, self.window)

    def append(self, *new: Tensor) -> tuple[Tensor, ...]:
        n, w, device = new[0].shape[1], self.window, new[0].device
        # The earliest new query sees W - 1 keys before itself: those come out before they are overwritten.
        before = torch.arange(self.length - min(self.length, w - 1), self.length, device=device) % w
        kept = min(n, w)
        slots = torch.arange(self.length + n - kept, self.length + n, device=device) % w
        out = []
        for held, tensor in zip(self.stored, new, strict=True):
            tensor = tensor.to(held.dtype)
            out.append(torch.cat((held.index_select(1, before), tensor), dim=1))
            held.index_copy_(1, slots, tensor[:, n - kept :].detach())
        self.length += n
        return tuple(out)


class GrowingCache(LayerCache):
    """Every token. Capacity grows by half at a time, so that a long decode copies each entry a few times at most."""

    SMALLEST = 256

    def __init__(self, empty: Sequence[Tensor]) -> None:
        """empty: a tensor (B, 0, ...) for each thing kept, for its batch size, shape, dtype and device."""
        self.stored = list(empty)
        self.length = 0

    @property
    def entries(self) -> int:
        return self.length

    def append(self, *new: Tensor) -> tuple[Tensor, ...]:
        before, end = self.length, self.length + new[0].shape[1]
        capacity = self.stored[0].shape[1]
        if end > capacity:
            self._grow(max(end, capacity * 3 // 2, self.SMALLEST))
        self.length = end
        training = torch.is_grad_enabled() and any(t.requires_grad for t in new)
        out = []
        for held, tensor in zip(self.stored, new, strict=True):
            held[:, before:end] = tensor.detach()
            if training:
                out.append(torch.cat((held[:, :before], tensor.to(held.dtype)), dim=1))
            else:
                out.append(held[:, :end])
        return tuple(out)

    def _grow(self, capacity: int) -> None:
        for i, old in enumerate(self.stored):
            self.stored[i] = old.new_zeros(old.shape[0], capacity, *old.shape[2:])
            self.stored[i][:, : self.length] = old[:, : self.length]


class Cache:
    """What a decoder remembers of the tokens so far: one LayerCache per layer, and how much of each row is padding.

    It only goes through `model(input_ids, cache=cache)`, which advances it.
    """

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers
        self.length = 0  # tokens seen so far, padding included
        self.pad: Tensor | None = None  # (B,) leading padding of each row
        self.given = False  # whether the caller gave the positions of the tokens so far

    @property
    def batch_size(self) -> int:
        return self.layers[0].stored[0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all entries held."""
        return sum(layer.nbytes for layer in self.layers)

    def reset(self) -> None:
        """Forget every token, to begin another context in the same storage."""
        for layer in self.layers:
            layer.reset()
        self.length, self.pad, self.given = 0, None, False

    def clone(self) -> Cache:
        """An independent copy: continue one context in two ways."""
        other = Cache([layer.clone() for layer in self.layers])
        other.length, other.pad, other.given = self.length, self.pad, self.given
        return other
