"""A decoder's cache of the tokens so far: one cache for each layer, and the padding of each row."""

from __future__ import annotations

from torch import Tensor

from miniwin.blocks.cache.layer_cache import LayerCache
from miniwin.blocks.spec import UserError


class Cache:
    """The tokens so far, as a decoder needs them: one LayerCache per layer, and the padding of each row.

    `model(input_ids, cache=cache)` reads it and adds the call's tokens.
    """

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers
        self.length = 0  # tokens seen so far, padding included
        self.pad: Tensor | None = None  # (B,) leading padding of each row
        self.given = False  # whether the tokens so far had positions that the caller gave

    @property
    def parts(self) -> list[LayerCache]:
        """The caches that hold the tokens, of all layers: usually one for each."""
        return [part for layer in self.layers for part in layer.parts]

    @property
    def batch_size(self) -> int:
        return self.layers[0].stored[0].shape[0]

    @property
    def halfway(self) -> bool:
        """Whether a failed call has added its tokens to some layers, or some heads, only."""
        return any(part.length != self.length for part in self.parts)

    def check_whole(self) -> None:
        """
        Raises:
            UserError: a failed call left the cache halfway.
        """
        if self.halfway:
            raise UserError("the cache was left halfway by a call that failed; make a new one, or reset() it")

    @property
    def nbytes(self) -> int:
        """Bytes of all entries held."""
        return sum(layer.nbytes for layer in self.layers)

    def reset(self) -> None:
        """Forget every token. Another context can then begin in the same storage."""
        self.set_length(0)
        self.pad, self.given = None, False

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` tokens in all, so that no layer has to grow later."""
        for layer in self.layers:
            layer.reserve(tokens)

    def held(self) -> dict[str, Tensor]:
        """Views of the layers' entries, by name."""
        return {
            f"layers.{i}.{name}": view for i, layer in enumerate(self.layers) for name, view in layer.held().items()
        }

    def set_length(self, tokens: int) -> None:
        """Set the number of tokens in all layers, without writing any."""
        for layer in self.layers:
            layer.set_length(tokens)
        self.length = tokens

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        for layer in self.layers:
            layer.select(rows)
        self.pad = None if self.pad is None else self.pad[rows]

    def clone(self) -> Cache:
        """An independent copy, to continue one context in two ways."""
        other = Cache([layer.clone() for layer in self.layers])
        other.length, other.pad, other.given = self.length, self.pad, self.given
        return other
