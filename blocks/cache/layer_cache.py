"""The contract of a layer's cache: for each token an entry of its key, its value, and what else the attention needs.

    append(k, v, ...) -> keys, values, ... of earlier tokens, then of the N new ones, in order of time

A local layer has a ring of W entries, a global layer growing storage. Keys are stored with their positions encoded
(already rotated), so nothing is rotated again. Softmax attention does not depend on the order of keys, so one new token
may get the ring's slots as they lie. The entries of one head are neighbours in memory, as a decoding step reads them.
Stored entries are detached: gradients reach the tokens of this call, never those of an earlier call.
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
Token = TypeVar("Token", int, Tensor)  # a token's number in its row, or the numbers of several (N,) int64


class LayerCache(ABC):
    """The cache of one layer. stored: one tensor (B, capacity, ...) for each part of an entry, keys first."""

    stored: list[Tensor]
    length: int  # tokens seen so far
    first: FirstTokens | None = None  # the sink tokens of a layer that has some
    int8 = False  # whether keys and values are in int8; their scales are then the last two parts of an entry

    @property
    def parts(self) -> Sequence[LayerCache]:
        """The caches that hold its tokens: itself; or several, if some of its heads see other tokens than others."""
        return [self]

    def of(self, parts: Sequence[LayerCache]) -> LayerCache:
        """The cache of a layer like this one that has these parts."""
        (only,) = parts
        return only

    @abstractmethod
    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        """Add N tokens, (B, N, ...) for each part; return what their queries may need, (B, M, ...), M >= N.

        in_order False: if N is 1, the entries may come in any order. Results may be views of the storage, which are
        valid until the next call.
        """

    def append_seen(self, *new: Tensor) -> tuple[Tensor, ...] | None:
        """Add one token of each row, (B, 1, ...), without padding; return all that it sees, and nothing else, in any
        order. None, and nothing is added: the cache has no shorter way to do so than `append`.
        """
        return None

    @abstractmethod
    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        """Count in new tokens, which the caller then writes into `stored`. Return the views that `append` would."""

    def claims(self, tokens: int) -> bool:
        """Whether `claim` takes so many tokens at once."""
        return True

    @abstractmethod
    def slot(self, token: Token) -> Token:
        """The slot in `stored` of a token, past or future."""

    @abstractmethod
    def room(self, tokens: int) -> int:
        """The number of slots that a context of so many tokens takes."""

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` tokens in all."""
        return  # a ring has all its room from the start

    def set_length(self, tokens: int) -> None:
        """Set the number of tokens that `stored` holds, without writing any."""
        self.length = tokens
        if self.first is not None:
            self.first.seen = tokens

    def overwritten(self, tokens: int) -> list[Tensor]:
        """Copies of the entries that the next `tokens` tokens will overwrite; none if each token has its own slot."""
        return []

    def take_back(self, start: int, keep: int, overwritten: Sequence[Tensor]) -> None:
        """Forget all tokens from `start` on except the first `keep`. overwritten: the copies made at `start`."""
        self.set_length(start + keep)

    @property
    @abstractmethod
    def entries(self) -> int:
        """The number of tokens that are held."""

    def in_sight(self, padding: int = 0) -> int:
        """The number of slots, from the first on, that hold what the last token sees. padding: of its row."""
        return self.entries

    @property
    def plain(self) -> bool:
        """Whether an entry is key and value (in int8 with their scales) and nothing else."""
        return len(self.stored) == (4 if self.int8 else 2)

    def held(self) -> dict[str, Tensor]:
        """Views of the entries, by name: the slots of a ring as they lie, or all tokens in order."""
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
        """A cache of the same kind and length, with other storage."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.stored, other.first = stored, first
        return other


def storage(empty: Tensor, capacity: int) -> Tensor:
    """Room for `capacity` entries: (B, 0, ...) -> (B, capacity, ...). A head's keys are neighbours in memory."""
    if empty.dim() != 4:
        return empty.new_empty(empty.shape[0], capacity, *empty.shape[2:])
    batch, _, heads, width = empty.shape
    return empty.new_empty(batch, heads, capacity, width).transpose(1, 2)


def storage_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype that a cache stores, from its name or from itself; None stays None.

    Raises:
        UserError: a cache cannot store this dtype.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in DTYPES.values():
        raise UserError(f"dtype: got {dtype!r} for a cache; expected one of {', '.join(DTYPES)}")
    return found
