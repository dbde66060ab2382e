"""One pre-norm transformer layer: h <- h + attention(norm(h));  h <- h + mlp(norm(h))."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from miniwin.blocks.attention import Attention
from miniwin.blocks.cache import LayerCache
from miniwin.blocks.registry import ATTENTIONS
from miniwin.blocks.rmsnorm import NORMS, RMSNormSpec
from miniwin.blocks.spec import Strict
from miniwin.blocks.swiglu import MLPS


class Layer(nn.Module):
    """(B, N, hidden_size) -> (B, N, hidden_size)."""

    def __init__(self, attention_norm: nn.Module, attention: Attention, mlp_norm: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp

    def forward(self, h: Tensor, positions: Tensor, cache: LayerCache | None, pad: Tensor | None) -> Tensor:
        h = h + self.attention(self.attention_norm(h), positions, cache, pad)
        out: Tensor = h + self.mlp(self.mlp_norm(h))
        return out


class LayerSpec(Strict):
    """A block of the pattern: `S: {attention: ..., mlp: ..., norm: ...}`."""

    attention: ATTENTIONS.field()  # type: ignore[valid-type]
    mlp: MLPS.field()  # type: ignore[valid-type]
    norm: NORMS.field() = Field(default_factory=RMSNormSpec)  # type: ignore[valid-type]

    def resolve(self, hidden_size: int) -> LayerSpec:
        return self.model_copy(update={"attention": self._parts[0].resolve(hidden_size)})

    @property
    def _parts(self) -> tuple[Any, Any, Any]:
        return self.attention, self.mlp, self.norm

    def build(self, hidden_size: int) -> Layer:
        attention, mlp, norm = self._parts
        return Layer(
            norm.build(hidden_size), attention.build(hidden_size), norm.build(hidden_size), mlp.build(hidden_size)
        )

    def canonical(self, hidden_size: int) -> dict[str, Any]:
        attention, mlp, norm = self._parts
        return {
            "attention": attention.canonical(hidden_size),
            "mlp": mlp.model_dump(mode="json"),
            "norm": norm.model_dump(mode="json"),
        }

    def parameters(self, hidden_size: int) -> int:
        attention, mlp, norm = self._parts
        return int(attention.parameters(hidden_size) + mlp.parameters(hidden_size) + 2 * norm.parameters(hidden_size))

    def flops(self, hidden_size: int, length: int) -> float:
        attention, mlp, _ = self._parts
        return float(attention.flops(hidden_size, length) + mlp.flops(hidden_size))
