"""Caches of what a layer keeps for each token: its key, its value, and whatever else its attention asks for.

    append(k, v, ...) -> the same in order of time, earlier tokens first, whose last N are the ones just given

A ring of W entries for a local layer, growing preallocated storage for a global one. Keys are stored as they are scored
(already rotated), so nothing is ever rotated again; and softmax attention over a set of keys is the same in any order,
so one new token may be given the ring as it lies. The rows of a head lie side by side, as a decoding step reads them.
What a cache stores is detached: gradients reach the tokens of a call, never those of an earlier one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Self, TypeVar

import torch
from torch import Tensor

from miniwin.blocks.cache.first_tokens import FirstTokens
from miniwin.blocks.spec import UserError

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "int8", "float64")}
Token = TypeVar("Token", int, Tensor)  # the number of a token, or many of them (N,) int64


class LayerCache(ABC):
    """Storage of one layer. stored: one tensor (B, capacity, ...) for each thing kept of a token, keys first."""

    stored: list[Tensor]
    length: int  # tokens seen so far
    first: FirstTokens | None = None  # a layer's first tokens, where it keeps them in sight
    int8 = False  # whether keys and values are in int8, and their scales the last two things kept

    @abstractmethod
    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        """Add (B, N, ...) of each thing; give back what the N new queries may need, (B, M, ...), M >= N.

        in_order False: one new token that sees all it is given may get it in any order. What comes back may be a view
        of the storage, good until the next call.
        """

    @abstractmethod
    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        """Count so many tokens in, whoever then writes them into `stored`; give back what `append` would."""

    def claims(self, tokens: int) -> bool:
        """Whether `claim` takes so many tokens at once."""
        return True

    @abstractmethod
    def slot(self, token: Token) -> Token:
        """Where in `stored` a token lies, or will lie."""

    @abstractmethod
    def room(self, tokens: int) -> int:
        """How many slots a context of so many tokens takes."""

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens in all."""
        return  # a ring has all its room from the start

    def set_length(self, tokens: int) -> None:
        """Say how many tokens `stored` holds, without writing any."""
        self.length = tokens
        if self.first is not None:
            self.first.seen = tokens

    def overwritten(self, tokens: int) -> list[Tensor]:
        """Copies of what the next tokens will be written over; none where each token has a slot of its own."""
        return []

    def take_back(self, start: int, keep: int, overwritten: Sequence[Tensor]) -> None:
        """Forget all tokens from `start` on but the first `keep`. overwritten: the copies made at `start`."""
        self.set_length(start + keep)

    @property
    @abstractmethod
    def entries(self) -> int:
        """How many tokens are held."""

    @property
    def plain(self) -> bool:
        """Whether a token leaves behind its key and its value (in int8 with their scales) and nothing else."""
        return self.first is None and len(self.stored) == (4 if self.int8 else 2)

    def held(self) -> dict[str, Tensor]:
        """Views of what is held, by name: a ring's slots as they lie, of other layers the tokens so far."""
        views = {str(j): tensor[:, : self.entries] for j, tensor in enumerate(self.stored)}
        if self.first is not None:
            views |= {f"first.{j}": tensor[:, : self.first.entries] for j, tensor in enumerate(self.first.stored)}
        return views

    @property
    def nbytes(self) -> int:
        """Bytes of the entries held."""
        held = sum(t.shape[0] * self.entries * prod(t.shape[2:]) * t.element_size() for t in self.stored)
        return held + (0 if self.first is None else self.first.nbytes)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        for i, held in enumerate(self.stored):
            self.stored[i] = storage(held[rows, :0], held.shape[1])
            self.stored[i][:, : self.entries] = held[rows, : self.entries]
        if self.first is not None:
            self.first.stored = [t[rows] for t in self.first.stored]

    def clone(self) -> Self:
        return self.over([t.clone() for t in self.stored], None if self.first is None else self.first.clone())

    def over(self, stored: list[Tensor], first: FirstTokens | None) -> Self:
        """A cache of the same kind and length, over other storage."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.stored, other.first = stored, first
        return other


def storage(empty: Tensor, capacity: int) -> Tensor:
    """Room for so many entries of (B, 0, ...), as (B, capacity, ...). Of keys and values each head's lie together."""
    if empty.dim() != 4:
        return empty.new_empty(empty.shape[0], capacity, *empty.shape[2:])
    batch, _, heads, width = empty.shape
    return empty.new_empty(batch, heads, capacity, width).transpose(1, 2)


def storage_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype that a cache can be asked to store, by its name or as it is; None stays None.

    Raises:
        UserError: it is another one.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in DTYPES.values():
        raise UserError(f"dtype: got {dtype!r} for a cache; expected one of {', '.join(DTYPES)}")
    return found


def in_training(new: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in new)
