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

    def forward(
        self, x: Tensor, positions: Positions, cache: LayerCache | None = None, pad: Tensor | None = None
    ) -> Tensor:
        whole = self._entered(x, positions)
        outs = [
            self._attended(self._of(whole, part), part.visibility, positions, held, pad)
            for part, held in zip(self.parts, self._caches(cache), strict=True)
        ]
        sharing = self.num_heads // self.num_kv_heads
        joined = torch.cat([outs[i][:, :, first * sharing : end * sharing] for _, i, first, end in self._order], 2)
        out: Tensor = self.o_proj(joined.flatten(-2))  # (B, N, H * D) -> (B, N, hidden_size)
        return out

    def remember(self, x: Tensor, positions: Positions, cache: LayerCache, pad: Tensor | None = None) -> None:
        whole = self._entered(x, positions)
        for part, held in zip(self.parts, self._caches(cache), strict=True):
            assert held is not None
            self._remembered(self._of(whole, part).entry, part.visibility, positions, held, pad)

    def new_cache(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> LayerCache:
        whole = self._one_token(batch_size)
        made = [self._new_cache(self._of(whole, part), part.visibility, dtype, device) for part in self.parts]
        return SplitCache(made)

    def _caches(self, cache: LayerCache | None) -> Sequence[LayerCache | None]:
        return [None] * len(self.parts) if cache is None else cache.parts

    def _of(self, whole: Entered, part: Part) -> Entered:
        """The heads of a part. An encoding that has none of them is left out."""
        count, sharing = len(whole.groups), self.num_heads // self.num_kv_heads
        gates = iter(whole.entry[2 * count :])
        groups, queries, pairs, own_gates, gated, before = [], [], list[Tensor](), [], [], 0
        for i, group in enumerate(whole.groups):
            shared = part.within(before, before + group.num_kv_heads)
            own = [(first * sharing, end * sharing) for first, end in shared]
            before += group.num_kv_heads
            all_gates = next(gates) if whole.gated[i] else None
            if not shared:
                continue
            heads = sum(end - first for first, end in shared)
            groups.append(HeadGroup(SomeHeads(group.encoding, own), heads * sharing, heads))
            queries.append(taken(whole.queries[i], 2, own))
            pairs += [taken(t, 2, shared) for t in whole.entry[2 * i : 2 * i + 2]]
            gated.append(all_gates is not None)
            if all_gates is not None:
                own_gates.append(taken(all_gates, 2, own))
        sinks = whole.sinks
        if sinks is not None:
            sinks = taken(sinks, 0, [(first * sharing, end * sharing) for first, end in runs(part.heads)])
        return Entered(groups, queries, (*pairs, *own_gates), gated, sinks)


def runs(heads: Sequence[int]) -> list[Run]:
    """Numbers in order, as runs of neighbours: [0, 1, 4] -> [(0, 2), (4, 5)]."""
    found: list[Run] = []
    for head in heads:
        if found and found[-1][1] == head:
            found[-1] = (found[-1][0], head + 1)
        else:
            found.append((head, head + 1))
    return found
