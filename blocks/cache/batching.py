"""Batched caches: join caches of one row each, of any lengths, into one cache of several rows; and split them again.

Decoding reads all weights for every token, however many rows there are, so several contexts together cost little more
than one. Shorter contexts get leading padding, as prompts in a batch do: token t of a row lies where token t + padding
of the longest row lies. Padding holds zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.cache.decoder_cache import Cache
from miniwin.blocks.cache.first_tokens import FirstTokens
from miniwin.blocks.cache.layer_cache import LayerCache, storage
from miniwin.blocks.spec import UserError


def joined(caches: Sequence[Cache]) -> Cache:
    """Copy caches of one row each into one cache with as many rows.

    Raises:
        UserError: see check_together.
    """
    check_together(caches)
    lengths = [cache.length for cache in caches]
    length = max(lengths)
    columns = zip(*(cache.layers for cache in caches), strict=True)
    together = Cache([_moved([(layer, 0) for layer in column], length) for column in columns])
    together.length, together.given = length, any(cache.given for cache in caches)
    if min(lengths) < length:
        device = caches[0].layers[0].stored[0].device
        together.pad = torch.tensor([length - each for each in lengths], device=device)
    return together


def row(cache: Cache, i: int) -> Cache:
    """Copy row i into a cache of its own, without padding."""
    pad = 0 if cache.pad is None else int(cache.pad[i])
    alone = Cache([_moved([(layer, i)], cache.length - pad) for layer in cache.layers])
    alone.length, alone.given = cache.length - pad, cache.given
    return alone


def _moved(rows: Sequence[tuple[LayerCache, int]], length: int) -> LayerCache:
    """A layer's cache of these rows, as if each had seen `length` tokens: the last ones are the row's own.

    rows: a cache of the layer and a row's number in it, for each row.
    """
    columns = zip(*([(part, i) for part in layer.parts] for layer, i in rows), strict=True)
    return rows[0][0].of([_part_moved(column, length) for column in columns])


def _part_moved(rows: Sequence[tuple[LayerCache, int]], length: int) -> LayerCache:
    like = rows[0][0]
    stored = [storage(_empty(t, len(rows)), like.room(length)) for t in like.stored]
    for j, tensor in enumerate(stored):
        for place, (layer, i) in enumerate(rows):
            shift = length - layer.length  # how many places later the row's tokens go
            first, end = max(0, layer.length - layer.entries, -shift), layer.length
            tensor[place] = 0
            tokens = torch.arange(first, end, device=tensor.device)
            tensor[place, layer.slot(tokens + shift)] = layer.stored[j][i, layer.slot(tokens)]
    made = like.over(stored, None if like.first is None else _first(rows))
    made.set_length(length)
    return made


def _first(rows: Sequence[tuple[LayerCache, int]]) -> FirstTokens:
    """The rows' sink tokens together. Padding does not move them: a token's slot is its position in the row."""
    kept: Any = [(layer.first, i) for layer, i in rows]
    made = kept[0][0].clone()
    made.stored = [torch.stack([first.stored[j][i] for first, i in kept]) for j in range(len(made.stored))]
    return made  # type: ignore[no-any-return]


def _empty(like: Tensor, rows: int) -> Tensor:
    return like.new_empty(rows, 0, *like.shape[2:])


def check_together(caches: Sequence[Cache]) -> None:
    """
    Raises:
        UserError: a cache is not a Cache, has several rows or padding, or was left halfway by a failed call; caches
            are of different models, dtypes or devices; or some have given positions and others do not.
    """
    for cache in caches:
        if not isinstance(cache, Cache):
            raise UserError(f"cache: got a {type(cache).__name__}; this model's contexts cannot be put side by side")
        if cache.batch_size != 1 or cache.pad is not None:
            raise UserError(f"cache: got batch size {cache.batch_size}, or padding; expected one row without padding")
        cache.check_whole()
        if _kind(cache) != _kind(caches[0]):
            raise UserError("caches: they are of different models, dtypes or devices; expected all of one kind")
    if len({cache.given for cache in caches if cache.length}) > 1:
        raise UserError("positions: given for some of these caches and not for others; they cannot go on together")


def _kind(cache: Cache) -> list[object]:
    """Equal for caches that can be joined."""
    return [
        [(type(part), part.room(0), [(t.dtype, t.device, t.shape[2:]) for t in part.stored]) for part in layer.parts]
        for layer in cache.layers
    ]
