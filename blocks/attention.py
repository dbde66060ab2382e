"""Softmax attention, local or global: grouped-query (Ainslie et al., arXiv 2305.13245), optionally with a sliding
window (Longformer, arXiv 2004.05150; Mistral, arXiv 2310.06825) and per-head QK-norm (Henry et al., arXiv 2010.04245).

    score_ij = <q_i, k_j> / sqrt(D) + bias(i - j);   key j is visible to query i iff 0 <= i - j < W

QK-norm acts before the rotation, as in Qwen3 and MiniMind. Shapes: B batch, N tokens, H heads, D head_dim.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from miniwin.blocks.attention_ops import AttentionCall, attend
from miniwin.blocks.cache import GrowingCache, LayerCache, RingCache
from miniwin.blocks.positions import PositionEncoding, located
from miniwin.blocks.registry import ATTENTIONS, POSITIONS
from miniwin.blocks.rmsnorm import NORMS
from miniwin.blocks.spec import PositiveInt, Strict


class Attention(nn.Module):
    """(B, N, hidden_size) -> (B, N, hidden_size). window None is global; q_norm and k_norm act on (..., head_dim)."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        position: PositionEncoding,
        window: int | None = None,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.window = window
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)
        self.position = position
        self.q_norm, self.k_norm = q_norm, k_norm

    def forward(
        self, x: Tensor, positions: Tensor, cache: LayerCache | None = None, pad: Tensor | None = None
    ) -> Tensor:
        """positions (1 or B, N): of each token in its row, 0 at the first real one. pad (B,): leading padding."""
        q = self.q_proj(x).unflatten(-1, (self.num_heads, self.head_dim))  # (B, N, H, D)
        k = self.k_proj(x).unflatten(-1, (self.num_kv_heads, self.head_dim))  # (B, N, Hkv, D)
        v = self.v_proj(x).unflatten(-1, (self.num_kv_heads, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.position.rotate(q, positions), self.position.rotate(k, positions)

        before = 0 if cache is None else cache.length
        if cache is not None:
            k, v = cache.append(k, v)
        dropped = before + x.shape[1] - k.shape[1]  # keys that a ring has already let go
        visible = positions + 1 if self.window is None else (positions + 1).clamp(max=self.window)
        scale = self.position.query_scale(visible, before + x.shape[1])
        if scale is not None:
            q = (q * scale).to(q.dtype)
        call = AttentionCall(
            q,
            k.to(q.dtype),
            v.to(q.dtype),
            scale=self.head_dim**-0.5,
            window=self.window,
            bias=self.position.score_bias(),
            pad=None if pad is None else (pad - dropped).clamp(min=0),
        )
        out: Tensor = self.o_proj(attend(call).flatten(-2))  # (B, N, H * D) -> (B, N, hidden_size)
        return out

    def new_cache(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> LayerCache:
        empty = torch.zeros(batch_size, 0, self.num_kv_heads, self.head_dim, dtype=dtype, device=device)
        return GrowingCache(empty) if self.window is None else RingCache(self.window, empty)


@ATTENTIONS.register
class AttentionSpec(Strict):
    """`attention: {num_heads: 4, num_kv_heads: 2, window: 64, position: {...}}`

    num_kv_heads: default num_heads. head_dim: default hidden_size / num_heads. window: keys a query sees, itself
    included; null is global. qk_norm: a norm on each head's queries and keys, null for none.
    """

    type: Literal["softmax"] = "softmax"
    num_heads: PositiveInt
    num_kv_heads: PositiveInt | None = None
    head_dim: Annotated[PositiveInt, Field(le=65_536)] | None = None
    window: PositiveInt | None = None
    position: POSITIONS.field()  # type: ignore[valid-type]
    qk_norm: NORMS.field() | None = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _fits(self) -> AttentionSpec:
        if self.num_heads % self.kv_heads:
            raise located(
                "num_kv_heads", f"got {self.kv_heads}; it must divide num_heads {self.num_heads}, which share them"
            )
        if self.head_dim is not None:
            self._position.check(self.head_dim, self.window)
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def _position(self) -> Any:
        return self.position

    def resolve(self, hidden_size: int) -> AttentionSpec:
        """The same with every default that depends on hidden_size filled in. Raises on what does not fit."""
        if self.head_dim is None and hidden_size % self.num_heads:
            raise located(
                "num_heads",
                f"got {self.num_heads}; it must divide hidden_size {hidden_size}, or give head_dim explicitly",
            )
        head_dim = self.head_dim or hidden_size // self.num_heads
        self._position.check(head_dim, self.window)
        return self.model_copy(update={"head_dim": head_dim, "num_kv_heads": self.kv_heads})

    def build(self, hidden_size: int) -> Attention:
        head_dim = self._dim(hidden_size)
        norm: Any = self.qk_norm
        return Attention(
            hidden_size,
            self.num_heads,
            self.kv_heads,
            head_dim,
            self._position.build(head_dim, self.num_heads, self.window),
            self.window,
            None if norm is None else norm.build(head_dim),
            None if norm is None else norm.build(head_dim),
        )

    def canonical(self, hidden_size: int) -> dict[str, Any]:
        """What decides the function computed, however it was written."""
        data = self.resolve(hidden_size).model_dump(mode="json")
        if hasattr(self.position, "canonical"):
            data["position"] = self._position.canonical(self._dim(hidden_size))
        return data

    def _dim(self, hidden_size: int) -> int:
        return self.head_dim or hidden_size // self.num_heads

    def _projections(self, hidden_size: int) -> int:
        return 2 * hidden_size * self._dim(hidden_size) * (self.num_heads + self.kv_heads)

    def parameters(self, hidden_size: int) -> int:
        norm: Any = self.qk_norm
        norms = 0 if norm is None else 2 * norm.parameters(self._dim(hidden_size))
        return self._projections(hidden_size) + norms + int(self._position.parameters(self.num_heads))

    def flops(self, hidden_size: int, length: int) -> float:
        """Forward floating-point operations per token, mean over a prefill of `length`.

        Two for each weight, and 4 D H for each visible key (scores and weighted values); softmax is not counted.
        """
        w = length if self.window is None else min(self.window, length)
        seen = (w * (w + 1) / 2 + (length - w) * w) / length  # keys seen by the mean query
        return 2.0 * self._projections(hidden_size) + 4.0 * self._dim(hidden_size) * self.num_heads * seen

    def cache_entries(self, length: int) -> int:
        """Tokens held after `length` tokens."""
        return length if self.window is None else min(self.window, length)

    def cache_size(self, hidden_size: int, length: int) -> int:
        """Numbers held for one sequence after `length` tokens: keys and values."""
        return 2 * self.cache_entries(length) * self.kv_heads * self._dim(hidden_size)
