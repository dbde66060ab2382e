"""Key/value caches: a ring of W entries for a local layer, growing preallocated storage for a global one.

    append(k, v) -> keys and values in order of time, whose last N are the ones just given

Keys are stored as they are scored (already rotated), so nothing is ever rotated again. What a cache stores is detached:
gradients reach the tokens of a call, never those of an earlier one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor


class LayerCache(ABC):
    """Storage of one layer. keys, values: (B, capacity, Hkv, D)."""

    keys: Tensor
    values: Tensor
    length: int  # tokens seen so far

    @abstractmethod
    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add k, v (B, N, Hkv, D); give back what the N new queries may need, (B, M, Hkv, D), M >= N."""

    def reset(self) -> None:
        """Forget every token; the storage stays."""
        self.length = 0

    @property
    @abstractmethod
    def entries(self) -> int:
        """How many tokens are held."""

    @property
    def nbytes(self) -> int:
        """Bytes of the entries held, keys and values."""
        batch, _, heads, dim = self.keys.shape
        return 2 * batch * self.entries * heads * dim * self.keys.element_size()

    def clone(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.keys, other.values = self.keys.clone(), self.values.clone()
        return other


class RingCache(LayerCache):
    """The last W tokens, whatever the context: token t lies in slot t mod W, written in place."""

    def __init__(self, window: int, empty: Tensor) -> None:
        """empty: (B, 0, Hkv, D), for its batch size, heads, dtype and device."""
        self.window = window
        self.keys = empty.new_zeros(empty.shape[0], window, *empty.shape[2:])
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    @property
    def entries(self) -> int:
        return min(self.length, self.window)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        k, v = k.to(self.keys.dtype), v.to(self.keys.dtype)
        n, w = k.shape[1], self.window
        # The earliest new query sees W - 1 keys before itself: those come out before they are overwritten.
        before = min(self.length, w - 1)
        slots = torch.arange(self.length - before, self.length, device=k.device) % w
        keys = torch.cat((self.keys.index_select(1, slots), k), dim=1)
        values = torch.cat((self.values.index_select(1, slots), v), dim=1)
        kept = min(n, w)
        slots = torch.arange(self.length + n - kept, self.length + n, device=k.device) % w
        self.keys.index_copy_(1, slots, k[:, n - kept :].detach())
        self.values.index_copy_(1, slots, v[:, n - kept :].detach())
        self.length += n
        return keys, values


class GrowingCache(LayerCache):
    """Every token. Capacity grows by half at a time, so that a long decode copies each entry a few times at most."""

    SMALLEST = 256

    def __init__(self, empty: Tensor) -> None:
        """empty: (B, 0, Hkv, D), for its batch size, heads, dtype and device."""
        self.keys = empty
        self.values = empty.clone()
        self.length = 0

    @property
    def entries(self) -> int:
        return self.length

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.shape[1]
        if end > self.keys.shape[1]:
            self._grow(max(end, self.keys.shape[1] * 3 // 2, self.SMALLEST))
        self.keys[:, self.length : end] = k.detach()
        self.values[:, self.length : end] = v.detach()
        before, self.length = self.length, end
        if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad):
            keys, values = self.keys[:, :before], self.values[:, :before]
            return torch.cat((keys, k.to(keys.dtype)), dim=1), torch.cat((values, v.to(values.dtype)), dim=1)
        return self.keys[:, :end], self.values[:, :end]

    def _grow(self, capacity: int) -> None:
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros(old.shape[0], capacity, *old.shape[2:])
            new[:, : self.length] = old[:, : self.length]
            setattr(self, name, new)


class Cache:
    """What a decoder remembers of the tokens so far: one LayerCache per layer, and how much of each row is padding.

    It only goes through `model(input_ids, cache=cache)`, which advances it.
    """

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers
        self.length = 0  # tokens seen so far, padding included
        self.pad: Tensor | None = None  # (B,) leading padding of each row

    @property
    def batch_size(self) -> int:
        return self.layers[0].keys.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all entries held."""
        return sum(layer.nbytes for layer in self.layers)

    def reset(self) -> None:
        """Forget every token, to begin another context in the same storage."""
        for layer in self.layers:
            layer.reset()
        self.length, self.pad = 0, None

    def clone(self) -> Cache:
        """An independent copy: continue one context in two ways."""
        other = Cache([layer.clone() for layer in self.layers])
        other.length, other.pad = self.length, self.pad
        return other
