"""The cache of a layer whose heads see differently: a ring or a growing cache for each set of heads that see alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

from miniwin.blocks.cache.first_tokens import FirstTokens
from miniwin.blocks.cache.layer_cache import LayerCache, Token


class SplitCache(LayerCache):
    """Parts, each a cache of its own for its own heads. Tokens enter the parts, all of them in every call.

    What the parts answer together is said here. What has an answer for each part only, such as a slot, is asked of the
    parts.
    """

    def __init__(self, parts: Sequence[LayerCache]) -> None:
        self._parts = list(parts)

    @property
    def parts(self) -> Sequence[LayerCache]:
        return self._parts

    def of(self, parts: Sequence[LayerCache]) -> LayerCache:
        return SplitCache(parts)

    @property
    def stored(self) -> list[Tensor]:  # type: ignore[override]
        return [tensor for part in self._parts for tensor in part.stored]

    @property
    def length(self) -> int:  # type: ignore[override]
        return max(part.length for part in self._parts)

    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        raise NotImplementedError("each part takes the entries of its own heads")

    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        raise NotImplementedError("each part has views of its own")

    def claims(self, tokens: int) -> bool:
        return False

    def slot(self, token: Token) -> Token:
        raise NotImplementedError("a token lies in another slot of each part")

    def room(self, tokens: int) -> int:
        return min(part.room(tokens) for part in self._parts)

    def reserve(self, tokens: int) -> None:
        for part in self._parts:
            part.reserve(tokens)

    def set_length(self, tokens: int) -> None:
        for part in self._parts:
            part.set_length(tokens)

    def overwritten(self, tokens: int) -> list[Any]:
        found = [part.overwritten(tokens) for part in self._parts]
        return found if any(found) else []

    def take_back(self, start: int, keep: int, overwritten: Sequence[Any]) -> None:
        for part, before in zip(self._parts, overwritten or [[]] * len(self._parts), strict=True):
            part.take_back(start, keep, before)

    @property
    def entries(self) -> int:
        return max(part.entries for part in self._parts)

    @property
    def plain(self) -> bool:
        return False

    def held(self) -> dict[str, Tensor]:
        return {f"{i}.{name}": view for i, part in enumerate(self._parts) for name, view in part.held().items()}

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def select(self, rows: Tensor) -> None:
        for part in self._parts:
            part.select(rows)

    def clone(self) -> Self:
        return type(self)([part.clone() for part in self._parts])

    def over(self, stored: list[Tensor], first: FirstTokens | None) -> Self:
        raise NotImplementedError("each part has storage of its own")
