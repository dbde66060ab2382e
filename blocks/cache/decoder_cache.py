"""What a decoder remembers of the tokens so far: a cache for each layer, and the padding of each row."""

from __future__ import annotations

from torch import Tensor

from miniwin.blocks.cache.layer_cache import LayerCache
from miniwin.blocks.spec import UserError


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
    def halfway(self) -> bool:
        """Whether a call that failed has put its tokens into some layers and not into others."""
        return any(layer.length != self.length for layer in self.layers)

    def check_whole(self) -> None:
        """
        Raises:
            UserError: it was left halfway.
        """
        if self.halfway:
            raise UserError("the cache was left halfway by a call that failed; make a new one, or reset() it")

    @property
    def nbytes(self) -> int:
        """Bytes of all entries held."""
        return sum(layer.nbytes for layer in self.layers)

    def reset(self) -> None:
        """Forget every token, to begin another context in the same storage."""
        self.set_length(0)
        self.pad, self.given = None, False

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens in all, so that no layer has to grow on the way."""
        for layer in self.layers:
            layer.reserve(tokens)

    def held(self) -> dict[str, Tensor]:
        """Views of what the layers hold, by name."""
        return {
            f"layers.{i}.{name}": view for i, layer in enumerate(self.layers) for name, view in layer.held().items()
        }

    def set_length(self, tokens: int) -> None:
        """Say how many tokens all layers hold, without writing any."""
        for layer in self.layers:
            layer.set_length(tokens)
        self.length = tokens

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order: the others have ended."""
        for layer in self.layers:
            layer.select(rows)
        self.pad = None if self.pad is None else self.pad[rows]

    def clone(self) -> Cache:
        """An independent copy: continue one context in two ways."""
        other = Cache([layer.clone() for layer in self.layers])
        other.length, other.pad, other.given = self.length, self.pad, self.given
        return other
