"""Attention, local or global: grouped-query (Ainslie et al., arXiv 2305.13245), with a sliding window (Longformer,
arXiv 2004.05150; Mistral, arXiv 2310.06825) or chunks, and what models add to it. For a query i and a visible key j:

    score_ij = cap * tanh(<norm(q_i), norm(k_j)> * scale / cap) + bias(i - j)
    weight_ij = exp(score_ij) / (exp(sink) + sum_j exp(score_ij))

norm: QK-norm (Henry et al., arXiv 2010.04245), per head or over the whole projection, before or after the rotation.
cap: soft-capping (Gemma 2, arXiv 2408.00118). sink: a learned logit per head that takes weight away from keys (gpt-oss,
arXiv 2508.10925). Each is absent unless the spec asks for it. The position encoding adds its own hooks.
Shapes: B batch, N tokens, M keys, H heads, Hkv key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from miniwin.blocks.attention.cached import attend_cached
from miniwin.blocks.attention.visibility import Visibility
from miniwin.blocks.attention_ops import AttentionCall, attend
from miniwin.blocks.attention_ops.call import Kept
from miniwin.blocks.cache import Int8Cache, LayerCache, storage_dtype
from miniwin.blocks.positions.base import HeadGroup, PositionEncoding, Positions
from miniwin.blocks.spec import UserError
from miniwin.blocks.triton_kernels import qkv_entry


@dataclass(frozen=True)
class QKNorm:
    """The norms of queries and keys.

    q, k: modules on (..., head_dim); on (..., heads * head_dim) if `whole`. after: norm after the rotation.
    """

    q: nn.Module
    k: nn.Module
    whole: bool = False
    after: bool = False


@dataclass(frozen=True)
class Where:
    """What the heads of one call share.

    window: of the calls; None where only keys come that are seen. total: tokens so far, those of the call included.
    cached: whether keys come from a cache. pad, start: see AttentionCall.
    """

    positions: Positions
    window: int | None
    total: int
    cached: bool
    pad: Tensor | None
    start: Tensor | None


@dataclass(frozen=True)
class Entered:
    """Heads that see alike, and the tokens that enter their attention.

    groups: the heads, by encoding. queries: (B, N, H, Dk) of each group, ready for scores. entry: of the tokens: keys
    (B, N, Hkv, Dk) and values (B, N, Hkv, D) of each group, then gates (B, N, H) of those that have some. gated: which
    groups have gates. sinks (H,): of all these heads, or None.
    """

    groups: list[HeadGroup]
    queries: list[Tensor]
    entry: tuple[Tensor, ...]
    gated: list[bool]
    sinks: Tensor | None


class Attention(nn.Module):
    """(B, N, hidden_size) -> (B, N, hidden_size)."""

    residual_writer = "o_proj"
    attend = staticmethod(attend)  # in compiled layers replaced by a version that is not compiled

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        position: PositionEncoding,
        visibility: Visibility,
        qk_norm: QKNorm | None = None,
        qkv_bias: bool = False,
        o_bias: bool = False,
        score_scale: float | None = None,
        softcap: float | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.visibility = visibility
        self.score_scale = head_dim**-0.5 if score_scale is None else score_scale
        self.softcap = softcap
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=o_bias)
        self.position = position
        self.q_norm = None if qk_norm is None else qk_norm.q
        self.k_norm = None if qk_norm is None else qk_norm.k
        self.norms_whole = qk_norm is not None and qk_norm.whole
        self.norms_after = qk_norm is not None and qk_norm.after
        self.sinks = nn.Parameter(torch.zeros(num_heads)) if sinks else None
        self.check_sinks(visibility)
        self.by_order = visibility.chunk is not None or bool(self._by_distance())
        self.scales_queries = any(group.encoding.scales_queries for group in self.groups)

    def check_sinks(self, visibility: Visibility) -> None:
        """
        Raises:
            UserError: there are sink tokens, and scores go by distance.
        """
        if visibility.keep_first and (found := self._by_distance()):
            raise UserError(f"keep_first: {type(found[0]).__name__} scores by distance; its spec must say by_distance")

    def _by_distance(self) -> list[PositionEncoding]:
        return [group.encoding for group in self.groups if _by_distance(group.encoding)]

    @property
    def groups(self) -> list[HeadGroup]:
        """Heads with an encoding of their own, in order. Usually one group: all heads."""
        return self.position.groups(self.num_heads, self.num_kv_heads)

    @property
    def runs(self) -> list[list[tuple[int, int]]]:
        """The key/value heads of each part of its cache, as (first, end) of each run of neighbours."""
        return [[(0, self.num_kv_heads)]]

    def query_scale(self, index: Tensor, total: int) -> Tensor | None:
        """What multiplies the queries at these positions (1 or B, N), if all heads have one encoding.

        (1 or B, N, H or 1, 1), or None. total: tokens so far.
        """
        if not self.scales_queries:
            return None
        return self.position.query_scale(self.visibility.count_visible(index), total)

    def forward(
        self, x: Tensor, positions: Positions, cache: LayerCache | None = None, pad: Tensor | None = None
    ) -> Tensor:
        """x (B, N, hidden_size) -> (B, N, hidden_size). pad (B,): leading padding of each row, this call's included."""
        if cache is not None and pad is None and qkv_entry.declines(self, x, cache) is None:
            q, entry = qkv_entry.enter(self, x, positions, cache)  # (B, N, H, D); k and v (B, M, Hkv, D) each
            entered = Entered(self.groups, [q], entry, [False], self.sinks)
            where = Where(positions, self.visibility.window, cache.length, True, None, None)
            attended = self._read(entered, [None], self.visibility, where, cache.int8)
        else:
            attended = self._attended(self._entered(x, positions), self.visibility, positions, cache, pad)
        out: Tensor = self.o_proj(attended.flatten(-2))  # (B, N, H * D) -> (B, N, hidden_size)
        return out

    def _attended(
        self,
        entered: Entered,
        visibility: Visibility,
        positions: Positions,
        cache: LayerCache | None,
        pad: Tensor | None,
    ) -> Tensor:
        """The outputs (B, N, H, D) of heads that see alike. Adds the tokens to the cache."""
        kept: list[Kept | None] = [None] * len(entered.groups)
        in_order = self.by_order or pad is not None or any(entered.gated)
        before = 0 if cache is None else cache.length
        total = before + entered.queries[0].shape[1]
        if cache is not None and not in_order and (seen := cache.append_seen(*entered.entry)) is not None:
            where = Where(positions, None, total, True, None, None)
            return self._read(replace(entered, entry=seen), kept, visibility, where, cache.int8)
        if visibility.keep_first:
            kept = self._kept(visibility, positions.index, pad, before, cache, *entered.entry)
        if cache is not None:
            # (B, N, Hkv, D) -> (B, M, Hkv, D), with the keys of earlier tokens
            entered = replace(entered, entry=cache.append(*entered.entry, in_order=in_order))
        dropped = total - entered.entry[0].shape[1]  # keys that a ring has dropped
        start = _start(visibility, dropped, pad, entered.entry[0].device)
        where = Where(positions, visibility.window, total, cache is not None, _left(pad, dropped), start)
        return self._read(entered, kept, visibility, where, cache is not None and cache.int8)

    def _read(
        self, entered: Entered, kept: list[Kept | None], visibility: Visibility, where: Where, int8: bool
    ) -> Tensor:
        """The outputs (B, N, H, D). The entry of `entered` has M >= N tokens here. int8: its last parts are scales."""
        entry, count = entered.entry, len(entered.groups)
        gates, outs, heads = iter(entry[2 * count :]), [], 0
        for i, (group, q) in enumerate(zip(entered.groups, entered.queries, strict=True)):
            k, v = entry[2 * i : 2 * i + 2]
            sinks = None if entered.sinks is None else entered.sinks[heads : heads + group.num_heads]
            scales = entry[len(entry) - 2 * (count - i) :][:2] if int8 else None
            log_gates = next(gates) if entered.gated[i] else None
            outs.append(self._of_group(group, visibility, q, k, v, where, log_gates, kept[i], sinks, scales))
            heads += group.num_heads
        return outs[0] if count == 1 else torch.cat(outs, 2)

    def _of_group(
        self,
        group: HeadGroup,
        visibility: Visibility,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        where: Where,
        log_gates: Tensor | None,
        kept: Kept | None,
        sinks: Tensor | None,
        scales: Sequence[Tensor] | None,
    ) -> Tensor:
        """The outputs (B, N, H, D) of heads with one encoding. scales: of keys and values in int8."""
        position = group.encoding
        if position.scales_queries:
            scale = position.query_scale(visibility.count_visible(where.positions.index), where.total)
            q = q if scale is None else (q * scale).to(q.dtype)
        call = AttentionCall(
            q,
            k,
            v,
            scale=self.score_scale,
            window=where.window,
            bias=position.score_bias(),
            pad=where.pad,
            chunk=visibility.chunk,
            start=where.start,
            kept=kept,
            sinks=sinks,
            softcap=self.softcap,
            log_gates=log_gates,
            score=position.score(),
            weighting=position.weighting,
            documents=where.positions.documents,
        )
        return attend_cached(call, scales) if where.cached else self.attend(call)

    def remember(self, x: Tensor, positions: Positions, cache: LayerCache, pad: Tensor | None = None) -> None:
        """Fill the cache as `forward` does, without computing attention. x (B, N, hidden_size)."""
        self._remembered(self._entered(x, positions).entry, self.visibility, positions, cache, pad)

    def _remembered(
        self,
        entry: tuple[Tensor, ...],
        visibility: Visibility,
        positions: Positions,
        cache: LayerCache,
        pad: Tensor | None,
    ) -> None:
        if visibility.keep_first:
            self._kept(visibility, positions.index, pad, cache.length, cache, *entry)
        cache.append(*entry)

    def _entered(self, x: Tensor, positions: Positions) -> Entered:
        """All heads, and the tokens x (B, N, hidden_size)."""
        q = self.q_proj(x).unflatten(-1, (self.num_heads, self.head_dim))  # (B, N, C) -> (B, N, H, D)
        k = self.k_proj(x).unflatten(-1, (self.num_kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.num_kv_heads, self.head_dim))
        if not self.norms_after:
            q, k = self._normed(self.q_norm, q), self._normed(self.k_norm, k)
        groups = self.groups
        queries, keys, values = self._by_group(q, k, v)
        for i, group in enumerate(groups):
            queries[i], keys[i] = group.encoding.encode(queries[i], keys[i], positions)
        if self.norms_after:
            whole = (t[0] if len(t) == 1 else torch.cat(t, 2) for t in (queries, keys))
            q, k = (self._normed(norm, t) for norm, t in zip((self.q_norm, self.k_norm), whole, strict=True))
            queries, keys, _ = self._by_group(q, k, v)
        gates = [group.encoding.log_gates(x) for group in groups]
        pairs = [t for pair in zip(keys, values, strict=True) for t in pair]
        entry = (*pairs, *(t for t in gates if t is not None))
        return Entered(groups, queries, entry, [t is not None for t in gates], self.sinks)

    def _by_group(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        if len(self.groups) == 1:
            return [q], [k], [v]
        own, shared = ([getattr(g, name) for g in self.groups] for name in ("num_heads", "num_kv_heads"))
        return list(q.split(own, 2)), list(k.split(shared, 2)), list(v.split(shared, 2))

    def _normed(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        if norm is None:
            return x
        out: Tensor = norm(x.flatten(-2)).unflatten(-1, x.shape[-2:]) if self.norms_whole else norm(x)
        return out

    def _kept(
        self,
        visibility: Visibility,
        index: Tensor,
        pad: Tensor | None,
        before: int,
        cache: LayerCache | None,
        *entry: Tensor,
    ) -> list[Kept | None]:
        """Each group's sink tokens: a row's first tokens, visible to queries whose window no longer holds them."""
        assert visibility.window is not None
        first = cache.first if cache is not None else visibility.first_tokens([t[:, :0] for t in entry])
        assert first is not None
        held = [t.to(new.dtype) for t, new in zip(first.append(index, pad, before, *entry), entry, strict=True)]
        # Distances of queries to sink tokens: (1 or B, N, S)
        gone = index.unsqueeze(-1) - torch.arange(visibility.keep_first, device=index.device)
        seen = gone >= visibility.window  # (1 or B, N, S)
        return [Kept(k, v, seen) for k, v in zip(held[::2], held[1::2], strict=True)]

    def new_cache(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> LayerCache:
        """An empty cache. With dtype int8 only heads that keep every token are in int8; rings are small: bfloat16."""
        return self._new_cache(self._one_token(batch_size), self.visibility, dtype, device)

    def _one_token(self, batch_size: int) -> Entered:
        """A token that shows the shapes of an entry: an encoding may widen keys or add gates."""
        weight = self.q_proj.weight
        x = weight.new_zeros(batch_size, 1, weight.shape[1])
        with torch.no_grad():
            return self._entered(x, Positions(torch.zeros(1, 1, dtype=torch.int64, device=weight.device)))

    @staticmethod
    def _new_cache(like: Entered, visibility: Visibility, dtype: torch.dtype, device: torch.device) -> LayerCache:
        storage_dtype(dtype)
        whole = dtype == torch.int8 and visibility.reach is None
        if dtype == torch.int8:
            dtype = torch.float32 if whole else torch.bfloat16
        pairs = 2 * len(like.groups)
        empty = [torch.zeros_like(t[:, :0], dtype=dtype, device=device) for t in like.entry[:pairs]]
        for gates in like.entry[pairs:]:  # float32 at least: sums of many gates in bfloat16 would drift
            empty.append(torch.zeros_like(gates[:, :0], dtype=torch.promote_types(dtype, torch.float32), device=device))
        return Int8Cache(empty, pairs) if whole else visibility.new_cache(empty)


def _start(visibility: Visibility, dropped: int, pad: Tensor | None, device: torch.device) -> Tensor | None:
    """The position of the call's first key in its row, (1 or B,), which decides where chunks begin; or None."""
    if visibility.chunk is None:
        return None
    start = torch.tensor([dropped], device=device)
    return start if pad is None else start - pad


def _by_distance(encoding: PositionEncoding) -> bool:
    scored = encoding.score_bias() is not None or encoding.score() is not None
    return scored or encoding.weighting != "softmax"


def _left(pad: Tensor | None, dropped: int) -> Tensor | None:
    """Leading padding (B,) among the keys that are left after the first `dropped`; None if no padding is left."""
    if pad is None or (dropped and pad.device.type == "cpu" and int(pad.max()) <= dropped):
        return None  # read on a CPU only: on a GPU reading `pad` would wait for the device
    return (pad - dropped).clamp(min=0)
