"""The cache of a global layer: every token, as it is or in int8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks.cache.layer_cache import LayerCache, Token, storage
from miniwin.blocks.cache.training import in_training
from miniwin.blocks.int8 import quantised
from miniwin.blocks.spec import UserError


class GrowingCache(LayerCache):
    """Every token. Capacity grows by half at a time, so that a long decode copies each entry only a few times."""

    SMALLEST = 256

    def __init__(self, empty: Sequence[Tensor]) -> None:
        """empty: a tensor (B, 0, ...) for each part of an entry, with its shape, dtype and device."""
        self.stored = list(empty)
        self.length = 0

    @property
    def entries(self) -> int:
        return self.length

    @property
    def capacity(self) -> int:
        return self.stored[0].shape[1]

    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        before = self.length
        self.claim(new[0].shape[1])
        end = self.length
        training = in_training(new)
        out = []
        for held, tensor in zip(self.stored, new, strict=True):
            held[:, before:end] = tensor.detach()
            if training:
                out.append(torch.cat((held[:, :before], tensor.to(held.dtype)), dim=1))
            else:
                out.append(held[:, :end])
        return tuple(out)

    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        end = self.length + tokens
        if end > self.capacity:
            self.reserve(max(end, self.capacity * 3 // 2, self.SMALLEST))
        self.length = end
        return tuple(held[:, :end] for held in self.stored)

    def slot(self, token: Token) -> Token:
        return token

    def room(self, tokens: int) -> int:
        return tokens

    def reserve(self, tokens: int) -> None:
        """Allocate room for `tokens` tokens in all. Memory costs nothing before it is written to."""
        for i, old in enumerate(self.stored):
            if tokens > old.shape[1]:
                self.stored[i] = storage(old[:, :0], tokens)
                self.stored[i][:, : self.length] = old[:, : self.length]


class Int8Cache(GrowingCache):
    """Every token, with keys and values in int8. Each head of a token has two scales, the last parts of the entry.

    `append` takes keys and values in floats. It returns both in int8, then other parts, then the scales (B, M, Hkv).
    quantised: how many parts of an entry, the first ones, are keys and values; more than two where groups of heads have
    their own.
    """

    int8 = True

    def __init__(self, empty: Sequence[Tensor], quantised: int = 2) -> None:
        """empty: as in GrowingCache, with keys and values in floats."""
        self.quantised = quantised
        kv, rest = empty[:quantised], empty[quantised:]
        scales = [t.new_empty(t.shape[:3], dtype=torch.float32) for t in kv]
        super().__init__([*(t.to(torch.int8) for t in kv), *rest, *scales])

    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        if in_training(new):
            raise UserError("dtype: got an int8 cache in training; gradients do not pass it: use torch.no_grad()")
        kv, scales = zip(*(quantised(t) for t in new[: self.quantised]), strict=True)
        return super().append(*kv, *new[self.quantised :], *scales, in_order=in_order)
