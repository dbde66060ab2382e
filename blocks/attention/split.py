"""Attention whose key/value heads see differently: some see all keys, others a window (`windows: [null, 512, 512]`).

    q, k, v of all heads  ->  for each window: the attention of its heads, over a cache of their own  ->  o_proj

Norms and positions act on all heads together, as in `Attention`. Then the heads part: those with the same window are
one attention call, and have a ring or a growing cache of their own. So a layer needs no more keys than its heads see.
Outputs are joined in the order of the heads. Heads that retrieve and heads that stream: DuoAttention, Xiao et
al., arXiv 2410.10819.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention.module import Attention, Entered
from miniwin.blocks.attention.visibility import Visibility
from miniwin.blocks.cache import LayerCache, SplitCache
from miniwin.blocks.positions.base import HeadGroup, Positions
from miniwin.blocks.positions.some_heads import SomeHeads, taken

Run = tuple[int, int]  # first and end of neighbouring heads


@dataclass(frozen=True)
class Part:
    """Heads that see alike. heads: the numbers of their key/value heads, in order."""

    visibility: Visibility
    heads: tuple[int, ...]

    def within(self, first: int, end: int) -> list[Run]:
        """The runs of its heads among `first` to `end`, counted from `first`."""
        return runs([head - first for head in self.heads if first <= head < end])


@dataclass(frozen=True)
class Heads:
    """Heads of a part that have one encoding. place: of the encoding's group among the layer's.

    own, shared: the runs of query heads, and of key/value heads, counted from the group's first. group: these heads.
    """

    place: int
    own: list[Run]
    shared: list[Run]
    group: HeadGroup


def parts(windows: Sequence[int | None], keep_first: int = 0) -> list[Part]:
    """The heads that have a window in common, for each window, in the order of their first heads.

    windows: of each key/value head. keep_first: sink tokens of the heads that have a window.
    """
    return [
        Part(
            Visibility(window, keep_first=0 if window is None else keep_first),
            tuple(head for head, own in enumerate(windows) if own == window),
        )
        for window in dict.fromkeys(windows)
    ]


def widest(windows: Sequence[int | None]) -> int | None:
    """The most keys that a head sees; None: all so far."""
    bounded = [window for window in windows if window is not None]
    return max(bounded) if len(bounded) == len(windows) else None


class SplitAttention(Attention):
    """(B, N, hidden_size) -> (B, N, hidden_size). Its `visibility` is that of the heads that see most."""

    def __init__(self, *, windows: Sequence[int | None], keep_first: int = 0, **fields: Any) -> None:
        """windows, keep_first: as in `parts`. fields: those of Attention, but for its visibility."""
        super().__init__(visibility=Visibility(widest(windows)), **fields)
        self.parts = parts(windows, keep_first)
        for part in self.parts:
            self.check_sinks(part.visibility)
        placed = []  # the runs of all parts: (first head, part, first and end among its heads)
        for i, part in enumerate(self.parts):
            done = 0
            for first, end in runs(part.heads):
                placed.append((first, i, done, done + end - first))
                done += end - first
        self._order = sorted(placed)
        # Not registered as modules: the encodings belong to `position`.
        self._heads = [self._heads_of(part) for part in self.parts]

    @property
    def runs(self) -> list[list[Run]]:
        return [runs(part.heads) for part in self.parts]

    def query_scale(self, index: Tensor, total: int) -> Tensor | None:
        if not self.scales_queries:
            return None
        scales = [self.position.query_scale(part.visibility.count_visible(index), total) for part in self.parts]
        sharing, found = self.num_heads // self.num_kv_heads, []
        for head, i, first, end in self._order:
            if (scale := scales[i]) is None:
                return None
            every = scale.expand(-1, -1, self.num_heads, -1)  # (1 or B, N, H or 1, 1) -> (1 or B, N, H, 1)
            found.append(every[:, :, head * sharing : (head + end - first) * sharing])
        return torch.cat(found, 2)

    def forward(
        self, x: Tensor, positions: Positions, cache: LayerCache | None = None, pad: Tensor | None = None
    ) -> Tensor:
        whole = self._entered(x, positions)
        outs = [
            self._attended(self._of(whole, i), part.visibility, positions, held, pad)
            for i, (part, held) in enumerate(zip(self.parts, self._caches(cache), strict=True))
        ]
        sharing = self.num_heads // self.num_kv_heads
        joined = torch.cat([outs[i][:, :, first * sharing : end * sharing] for _, i, first, end in self._order], 2)
        out: Tensor = self.o_proj(joined.flatten(-2))  # (B, N, H * D) -> (B, N, hidden_size)
        return out

    def remember(self, x: Tensor, positions: Positions, cache: LayerCache, pad: Tensor | None = None) -> None:
        whole = self._entered(x, positions)
        for i, (part, held) in enumerate(zip(self.parts, cache.parts, strict=True)):
            self._remembered(self._of(whole, i).entry, part.visibility, positions, held, pad)

    def new_cache(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> LayerCache:
        whole = self._one_token(batch_size)
        made = [
            self._new_cache(self._of(whole, i), part.visibility, dtype, device) for i, part in enumerate(self.parts)
        ]
        return SplitCache(made)

    def _caches(self, cache: LayerCache | None) -> Sequence[LayerCache | None]:
        return [None] * len(self.parts) if cache is None else cache.parts

    def _heads_of(self, part: Part) -> list[Heads]:
        """The heads of a part in each group of heads with an encoding of their own, where there are some."""
        found, before = [], 0
        sharing = self.num_heads // self.num_kv_heads
        for i, group in enumerate(self.groups):
            shared = part.within(before, before + group.num_kv_heads)
            before += group.num_kv_heads
            if shared:
                own = [(first * sharing, end * sharing) for first, end in shared]
                count = sum(end - first for first, end in shared)
                found.append(Heads(i, own, shared, HeadGroup(SomeHeads(group.encoding, own), count * sharing, count)))
        return found

    def _of(self, whole: Entered, i: int) -> Entered:
        """The heads of part i."""
        heads, count = self._heads[i], len(whole.groups)
        pairs = [taken(t, 2, one.shared) for one in heads for t in whole.entry[2 * one.place : 2 * one.place + 2]]
        gates = iter(whole.entry[2 * count :])
        gates_of = {place: next(gates) for place, gated in enumerate(whole.gated) if gated}
        own = [taken(gates_of[one.place], 2, one.own) for one in heads if one.place in gates_of]
        sinks, sharing = whole.sinks, self.num_heads // self.num_kv_heads
        if sinks is not None:
            sinks = taken(sinks, 0, [(first * sharing, end * sharing) for first, end in runs(self.parts[i].heads)])
        return Entered(
            [one.group for one in heads],
            [taken(whole.queries[one.place], 2, one.own) for one in heads],
            (*pairs, *own),
            [one.place in gates_of for one in heads],
            sinks,
        )


def runs(heads: Sequence[int]) -> list[Run]:
    """Numbers in order, as runs of neighbours: [0, 1, 4] -> [(0, 2), (4, 5)]."""
    found: list[Run] = []
    for head in heads:
        if found and found[-1][1] == head:
            found[-1] = (found[-1][0], head + 1)
        else:
            found.append((head, head + 1))
    return found
