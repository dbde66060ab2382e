"""A transformer layer: attention A and MLP M, and how they write into the residual stream h.

pre       h <- h + A(norm(h));           h <- h + M(norm(h))                 GPT-2, Llama
post      h <- h + norm(A(h));           h <- h + norm(M(h))                 OLMo 2 (arXiv 2501.00656, section 3.2)
sandwich  h <- h + norm(A(norm(h)));     h <- h + norm(M(norm(h)))           Gemma 2 (arXiv 2408.00118)
parallel  n = norm(h);  h <- h + A(n) + M(n)                                 GPT-J, Command R
parallel-two-norms      h <- h + A(norm(h)) + M(norm'(h))                    GPT-NeoX (arXiv 2204.06745, section 2.1)

With a residual_scale s, all that is added to h is multiplied by s first (Granite).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from miniwin.blocks.attention import Attention
from miniwin.blocks.cache import LayerCache
from miniwin.blocks.mlps.swiglu import MLPS
from miniwin.blocks.norms.rmsnorm import NORMS, RMSNormSpec
from miniwin.blocks.positions.base import Positions
from miniwin.blocks.registry import ATTENTIONS
from miniwin.blocks.spec import PositiveReal, Strict, facts


class Layer(nn.Module):
    """Attention, then MLP: (B, N, hidden_size) -> (B, N, hidden_size). Norms before, after, or both; None: no norm."""

    def __init__(
        self,
        attention: Attention,
        mlp: nn.Module,
        attention_norm: nn.Module | None = None,
        mlp_norm: nn.Module | None = None,
        attention_post_norm: nn.Module | None = None,
        mlp_post_norm: nn.Module | None = None,
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self.attention_post_norm = attention_post_norm
        self.mlp_post_norm = mlp_post_norm
        self.residual_scale = residual_scale

    def forward(self, h: Tensor, positions: Positions, cache: LayerCache | None, pad: Tensor | None) -> Tensor:
        x = self.attention(_normed(self.attention_norm, h), positions, cache, pad)
        h = h + _scaled(_normed(self.attention_post_norm, x), self.residual_scale)
        x = self.mlp(_normed(self.mlp_norm, h))
        return h + _scaled(_normed(self.mlp_post_norm, x), self.residual_scale)

    def remember(self, h: Tensor, positions: Positions, cache: LayerCache, pad: Tensor | None) -> None:
        """Fill the cache from h (B, N, hidden_size), and compute nothing else."""
        self.attention.remember(_normed(self.attention_norm, h), positions, cache, pad)


class ParallelLayer(nn.Module):
    """Attention and MLP side by side: (B, N, hidden_size) -> (B, N, hidden_size). mlp_norm None: one norm for both."""

    def __init__(
        self,
        attention: Attention,
        mlp: nn.Module,
        attention_norm: nn.Module,
        mlp_norm: nn.Module | None = None,
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self.residual_scale = residual_scale

    def forward(self, h: Tensor, positions: Positions, cache: LayerCache | None, pad: Tensor | None) -> Tensor:
        x = self.attention_norm(h)
        y = x if self.mlp_norm is None else self.mlp_norm(h)
        scale = self.residual_scale
        out: Tensor = h + _scaled(self.attention(x, positions, cache, pad), scale) + _scaled(self.mlp(y), scale)
        return out

    def remember(self, h: Tensor, positions: Positions, cache: LayerCache, pad: Tensor | None) -> None:
        """Fill the cache from h (B, N, hidden_size), and compute nothing else."""
        self.attention.remember(self.attention_norm(h), positions, cache, pad)


def _normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _scaled(x: Tensor, scale: float | None) -> Tensor:
    return x if scale is None else x * scale


# The norms of each arrangement.
NORM_NAMES = {
    "pre": ("attention_norm", "mlp_norm"),
    "post": ("attention_post_norm", "mlp_post_norm"),
    "sandwich": ("attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm"),
    "parallel": ("attention_norm",),
    "parallel-two-norms": ("attention_norm", "mlp_norm"),
}


class LayerSpec(Strict):
    """A block of the pattern: `S: {attention: ..., mlp: ..., norm: ..., residual: pre}`."""

    LATER: ClassVar[frozenset[str]] = frozenset({"residual", "residual_scale"})

    attention: ATTENTIONS.field()  # type: ignore[valid-type]
    mlp: MLPS.field()  # type: ignore[valid-type]
    norm: NORMS.field() = Field(default_factory=RMSNormSpec)  # type: ignore[valid-type]
    residual: Literal["pre", "post", "sandwich", "parallel", "parallel-two-norms"] = "pre"
    residual_scale: PositiveReal | None = None

    def resolve(self, hidden_size: int) -> LayerSpec:
        return self.model_copy(update={"attention": self._parts[0].resolve(hidden_size)})

    @property
    def _parts(self) -> tuple[Any, Any, Any]:
        return self.attention, self.mlp, self.norm

    def build(self, hidden_size: int) -> nn.Module:
        attention, mlp, norm = self._parts
        kind = ParallelLayer if self.residual.startswith("parallel") else Layer
        norms = {name: norm.build(hidden_size) for name in NORM_NAMES[self.residual]}
        resolved = attention.resolve(hidden_size).build(hidden_size)
        return kind(resolved, mlp.build(hidden_size), **norms, residual_scale=self.residual_scale)

    def canonical(self, hidden_size: int) -> dict[str, Any]:
        return {**facts(self), "attention": self._parts[0].canonical(hidden_size)}

    def parameters(self, hidden_size: int) -> int:
        attention, mlp, norm = self._parts
        norms = len(NORM_NAMES[self.residual]) * norm.parameters(hidden_size)
        return int(attention.parameters(hidden_size) + mlp.parameters(hidden_size) + norms)

    def active_parameters(self, hidden_size: int) -> int:
        """The parameters that one token uses: of a mixture of experts, those of the chosen experts."""
        mlp = self._parts[1]
        return int(self.parameters(hidden_size) - mlp.parameters(hidden_size) + mlp.active_parameters(hidden_size))

    def flops(self, hidden_size: int, length: int) -> float:
        attention, mlp, _ = self._parts
        return float(attention.flops(hidden_size, length) + mlp.flops(hidden_size))
