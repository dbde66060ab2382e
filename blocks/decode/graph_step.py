"""A decoding step that runs the same operations on the same memory for every token, so that it can be recorded.

On a GPU a small model's step is mostly the launching of its kernels. A CUDA graph launches them all at once, if nothing
in the step depends on a number that only the host knows. So the position is a tensor on the device, and caches have all
their room from the start. Free slots are hidden as leading padding is: token t lies in slot
capacity - 1 - t mod capacity, so free slots come first. For softmax attention the order of keys does not matter.

Shapes: B rows of equal length without padding, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention import Attention
from miniwin.blocks.attention_ops import may_use, sdpa, use_backend
from miniwin.blocks.cache import Cache, LayerCache, storage
from miniwin.blocks.cache.layer_cache import Token
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.positions.base import Positions

RECORDED = "cuda"  # the type of device on which steps are recorded
WARM = 3  # steps before the recording: in the first ones libraries allocate memory and compile kernels


class FixedCache(LayerCache):
    """A layer's cache with fixed room, (B, capacity, ...). It takes one token at a time, at position `at` (1,)."""

    def __init__(self, held: LayerCache, capacity: int, at: Tensor) -> None:
        """held: the cache to copy. A ring keeps its own room; a growing cache gets `capacity` slots."""
        self.at, self.capacity = at, held.room(capacity)
        # `append` returns `capacity` slots, the new token's included. To the attention none of them was ever dropped.
        self.length = self.capacity - 1
        positions = torch.arange(held.length - held.entries, held.length, device=at.device)
        self.stored = [storage(t[:, :0], self.capacity) for t in held.stored]
        for mine, theirs in zip(self.stored, held.stored, strict=True):
            mine.zero_()  # hidden slots have weight 0, and 0 times unwritten memory may be NaN
            mine[:, self.slot(positions)] = theirs[:, held.slot(positions)]

    @property
    def entries(self) -> int:
        return self.capacity

    @property
    def free(self) -> Tensor:
        """The number of slots (1,) that are free after the new token. Free slots come first."""
        return (self.capacity - 1 - self.at).clamp(min=0)

    def append(self, *new: Tensor, in_order: bool = True) -> tuple[Tensor, ...]:
        slot = self.slot(self.at)
        for held, tensor in zip(self.stored, new, strict=True):
            held.index_copy_(1, slot, tensor.to(held.dtype))
        return tuple(self.stored)

    def claim(self, tokens: int) -> tuple[Tensor, ...]:
        raise NotImplementedError("its slots are known to the device alone")

    def claims(self, tokens: int) -> bool:
        return False

    def slot(self, token: Token) -> Token:
        return self.capacity - 1 - token % self.capacity

    def room(self, tokens: int) -> int:
        return self.capacity


class GraphStep:
    """Decodes on from a copy of a warm cache: `step(ids)` (B, 1) -> logits (B, 1, V). The next step overwrites them.

    capacity: the most tokens that there will be, those in the cache included.
    """

    def __init__(self, decoder: Decoder, cache: Cache, capacity: int) -> None:
        reason = declines(decoder, cache)
        assert reason is None, reason
        assert cache.length < capacity
        device = decoder.embed_tokens.weight.device
        self.decoder, self.capacity, self.length = decoder, capacity, cache.length
        self.at = torch.tensor([cache.length], device=device)
        self.ids = torch.zeros(cache.batch_size, 1, dtype=torch.int64, device=device)
        self.layers = [FixedCache(held, capacity, self.at) for held in cache.layers]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits: Tensor | None = None
        if device.type == RECORDED:
            with torch.cuda.device_of(self.at):  # streams belong to the current device, which may be another one
                self._record()

    def step(self, ids: Tensor) -> Tensor:
        assert self.length < self.capacity, "more tokens than there is room for"
        self.ids.copy_(ids)
        if self.graph is None:
            self.logits = self._run()
        else:
            with torch.cuda.device_of(self.at):
                self.graph.replay()
        self.at += 1
        self.length += 1
        assert self.logits is not None
        return self.logits

    @torch.no_grad()
    def _run(self) -> Tensor:
        index = self.at.unsqueeze(0)
        where = Positions(index, index.double())  # real positions need no table, whose size would depend on the index
        h = self.decoder.embed(self.ids)  # (B, 1) -> (B, 1, C)
        layer: Any
        with use_backend("sdpa"):
            for layer, held in zip(self.decoder.layers, self.layers, strict=True):
                h = layer(h, where, held, held.free.expand(len(h)))
        return self.decoder.logits(self.decoder.norm(h))  # (B, 1, C) -> (B, 1, V)

    def _record(self) -> None:
        """Record a step. The runs before and during the recording write only the new token's slot."""
        now, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._run()
        now.wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        # The outer stream: if a recording fails, torch leaves the recording's stream current, and decoding goes on.
        # Our own stream for the recording: torch's belongs to the device that was current when torch first made it.
        with torch.cuda.stream(now), torch.cuda.graph(self.graph, stream=aside):
            self.logits = self._run()


def declines(decoder: Decoder, cache: Cache) -> str | None:
    """Why a step cannot be the same for every token; None if it can."""
    if not may_use(sdpa):
        return "another attention backend is asked for"
    if cache.pad is not None or cache.given:
        return "rows are padded, or the caller gives positions"
    if decoder.embed_positions is not None:
        return "positions are added to the embeddings, and end"
    for held in cache.layers:
        if len(held.parts) > 1:
            return "heads of a layer see differently"
        if held.int8 or not held.plain:
            return "a cache in int8" if held.int8 else "a layer keeps more than keys and values"
        if held.first is not None:
            return "a layer keeps sink tokens"
    for attention in decoder.attentions:
        if type(attention) is not Attention or attention.by_order:
            return "keys may be wanted in order"
        if attention.softcap is not None or attention.sinks is not None:
            return "sinks or a soft-cap"
        if attention.scales_queries and counts_keys(attention):
            return "queries are scaled by the length at hand"
    for module in decoder.modules():
        if hasattr(module, "take_auxiliary_loss"):
            return "its experts take other numbers of tokens at every step"
    return None


class _Unread:
    """Stands for a number that must not be used."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("this stands for no number")

    def __bool__(self) -> bool:
        raise TypeError("this stands for no number")


def counts_keys(attention: Attention) -> bool:
    """Whether the scale of queries depends on the number of keys in the call. Here a call always has all slots."""
    seen = torch.ones(1, 1, dtype=torch.int64, device=attention.q_proj.weight.device)
    unread: Any = _Unread()
    try:
        attention.position.query_scale(seen, unread)
    except TypeError:
        return True
    return False
