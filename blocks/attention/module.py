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

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from miniwin.blocks.attention.cached import attend_cached
from miniwin.blocks.attention.visibility import Visibility
from miniwin.blocks.attention_ops import AttentionCall, attend
from miniwin.blocks.attention_ops.call import Kept
from miniwin.blocks.cache import Int8Cache, LayerCache, storage_dtype
from miniwin.blocks.positions.base import PositionEncoding, Positions
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
        by_distance = position.score_bias() is not None or position.score() is not None
        if visibility.keep_first and (by_distance or position.weighting != "softmax"):
            raise UserError(f"keep_first: {type(position).__name__} scores by distance; its spec must say by_distance")
        self.by_order = visibility.chunk is not None or by_distance or position.weighting != "softmax"
        self.scales_queries = type(position).query_scale is not PositionEncoding.query_scale

    def forward(
        self, x: Tensor, positions: Positions, cache: LayerCache | None = None, pad: Tensor | None = None
    ) -> Tensor:
        """x (B, N, hidden_size) -> (B, N, hidden_size). pad (B,): leading padding of each row, this call's included."""
        before = 0 if cache is None else cache.length
        gates = kept = None
        entry: tuple[Tensor, ...]
        if cache is not None and pad is None and qkv_entry.declines(self, x, cache) is None:
            q, entry = qkv_entry.enter(self, x, positions, cache)  # (B, N, H, D); k and v (B, M, Hkv, D) each
        else:
            q, k, v = self._projected(x, positions)  # (B, N, H, Dk), (B, N, Hkv, Dk), (B, N, Hkv, D)
            gates = self.position.log_gates(x)  # (B, N, H)
            entry = (k, v) if gates is None else (k, v, gates)
            kept = self._kept(positions.index, pad, before, cache, *entry) if self.visibility.keep_first else None
            if cache is not None:
                # (B, N, Hkv, D) -> (B, M, Hkv, D), with the keys of earlier tokens
                entry = cache.append(*entry, in_order=self.by_order or pad is not None or gates is not None)
        dropped = before + x.shape[1] - entry[0].shape[1]  # keys that a ring has dropped
        if self.scales_queries:
            scale = self.position.query_scale(self.visibility.count_visible(positions.index), before + x.shape[1])
            q = q if scale is None else (q * scale).to(q.dtype)
        call = AttentionCall(
            q,
            entry[0],
            entry[1],
            scale=self.score_scale,
            window=self.visibility.window,
            bias=self.position.score_bias(),
            pad=_left(pad, dropped),
            chunk=self.visibility.chunk,
            start=self._start(dropped, pad, x.device),
            kept=kept,
            sinks=self.sinks,
            softcap=self.softcap,
            log_gates=None if gates is None else entry[2],
            score=self.position.score(),
            weighting=self.position.weighting,
            documents=positions.documents,
        )
        scales = entry[-2:] if cache is not None and cache.int8 else None
        attended = self.attend(call) if cache is None else attend_cached(call, scales)
        out: Tensor = self.o_proj(attended.flatten(-2))  # (B, N, H * D) -> (B, N, hidden_size)
        return out

    def remember(self, x: Tensor, positions: Positions, cache: LayerCache, pad: Tensor | None = None) -> None:
        """Fill the cache as `forward` does, without computing attention. x (B, N, hidden_size)."""
        _, k, v = self._projected(x, positions)
        gates = self.position.log_gates(x)
        entry: tuple[Tensor, ...] = (k, v) if gates is None else (k, v, gates)
        if self.visibility.keep_first:
            self._kept(positions.index, pad, cache.length, cache, *entry)
        cache.append(*entry)

    def _projected(self, x: Tensor, positions: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, H, Dk), keys (B, N, Hkv, Dk) and values (B, N, Hkv, D), ready for scores and the cache."""
        q = self.q_proj(x).unflatten(-1, (self.num_heads, self.head_dim))  # (B, N, C) -> (B, N, H, D)
        k = self.k_proj(x).unflatten(-1, (self.num_kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.num_kv_heads, self.head_dim))
        if not self.norms_after:
            q, k = self._normed(self.q_norm, q), self._normed(self.k_norm, k)
        q, k = self.position.encode(q, k, positions)
        if self.norms_after:
            q, k = self._normed(self.q_norm, q), self._normed(self.k_norm, k)
        return q, k, v

    def _normed(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        if norm is None:
            return x
        out: Tensor = norm(x.flatten(-2)).unflatten(-1, x.shape[-2:]) if self.norms_whole else norm(x)
        return out

    def _start(self, dropped: int, pad: Tensor | None, device: torch.device) -> Tensor | None:
        """The position of the call's first key in its row, (1 or B,), which decides where chunks begin; or None."""
        if self.visibility.chunk is None:
            return None
        start = torch.tensor([dropped], device=device)
        return start if pad is None else start - pad

    def _kept(
        self, index: Tensor, pad: Tensor | None, before: int, cache: LayerCache | None, *entry: Tensor
    ) -> Kept | None:
        """The sink tokens: each row's first tokens, visible to queries whose window no longer holds them."""
        assert self.visibility.window is not None
        first = cache.first if cache is not None else self.visibility.first_tokens([t[:, :0] for t in entry])
        assert first is not None
        k, v = first.append(index, pad, before, *entry)
        # Distances of queries to sink tokens: (1 or B, N, S)
        gone = index.unsqueeze(-1) - torch.arange(self.visibility.keep_first, device=index.device)
        q_dtype = entry[0].dtype
        return Kept(k.to(q_dtype), v.to(q_dtype), gone >= self.visibility.window)  # seen: (1 or B, N, S)

    def new_cache(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> LayerCache:
        """An empty cache. With dtype int8 only layers that keep every token are in int8; rings are small: bfloat16."""
        storage_dtype(dtype)
        whole = dtype == torch.int8 and self.visibility.reach is None
        if dtype == torch.int8:
            dtype = torch.float32 if whole else torch.bfloat16
        # Project one token to see the shapes of its entry: an encoding may widen keys or add gates.
        weight = self.q_proj.weight
        x = weight.new_zeros(batch_size, 1, weight.shape[1])
        with torch.no_grad():
            _, k, v = self._projected(x, Positions(torch.zeros(1, 1, dtype=torch.int64, device=weight.device)))
            gates = self.position.log_gates(x)
        empty = [torch.zeros_like(t[:, :0], dtype=dtype, device=device) for t in (k, v)]
        if gates is not None:  # float32 at least: sums of many gates in bfloat16 would drift
            empty.append(torch.zeros_like(gates[:, :0], dtype=torch.promote_types(dtype, torch.float32), device=device))
        return Int8Cache(empty) if whole else self.visibility.new_cache(empty)


def _left(pad: Tensor | None, dropped: int) -> Tensor | None:
    """Leading padding (B,) among the keys that are left after the first `dropped`; None if no padding is left."""
    if pad is None or (dropped and pad.device.type == "cpu" and int(pad.max()) <= dropped):
        return None  # read on a CPU only: on a GPU reading `pad` would wait for the device
    return (pad - dropped).clamp(min=0)
