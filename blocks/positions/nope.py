"""NoPE: no positional encoding, only the causal mask (Kazemnejad et al., arXiv 2305.19466), with logit scaling.

Without position a query's attention spreads thinner the more keys it sees. Logit scaling multiplies each query by a
function of the number n of keys *that query* sees: its position + 1 in a global layer, at most the window in a local
one. n is never the total length: a prefill would not be causal, and decoding would disagree with it. Scaling is on by
default: without it recall through NoPE layers collapses beyond the trained length.

Cost: the parameters of the scale (one per head for a learned one).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec
from miniwin.blocks.positions.logit_scale import LogScaleSpec
from miniwin.blocks.registry import LOGIT_SCALES, POSITIONS


class Nope(PositionEncoding):
    def __init__(self, logit_scale: nn.Module | None) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    def query_scale(self, visible: Tensor, total: int) -> Tensor | None:
        return None if self.logit_scale is None else self.logit_scale(visible, total)


@POSITIONS.register
class NopeSpec(PositionSpec):
    """`position: {type: nope}`, scaled as `logit_scale: {type: log}`; `logit_scale: null` turns scaling off."""

    type: Literal["nope"] = "nope"
    logit_scale: LOGIT_SCALES.field() | None = Field(default_factory=LogScaleSpec)  # type: ignore[valid-type]

    def build(self, heads: Heads) -> Nope:
        scale: Any = self.logit_scale
        return Nope(None if scale is None else scale.build(heads.num_heads))

    def parameters(self, heads: Heads) -> int:
        scale: Any = self.logit_scale
        return 0 if scale is None else int(scale.parameters(heads.num_heads))

    def words(self) -> list[str]:
        scale: Any = self.logit_scale
        return [self.type, "unscaled" if scale is None else f"{scale.type} scale"]
