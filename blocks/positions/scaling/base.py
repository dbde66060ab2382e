"""The contract of a RoPE scaling: new frequencies, and a factor on cos and sin (on scores, its square).

A scaling is fixed in the spec and never looks at how long the sequence at hand is. Sources that switch with the actual
length give a token another rotation once more tokens follow: a prefill then disagrees with decoding, and keys already
cached are wrong. Where a scheme needs a length, the spec names it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from miniwin.blocks.spec import Real, Strict, facts

# How many times longer the context becomes. Below 1 it would shrink, which none of these schemes is for; the upper
# bound keeps powers of it finite.
Factor = Annotated[Real, Field(ge=1, le=1e9)]


class ScalingSpec(Strict):
    """Base of every scaling's spec."""

    type: str

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        """Raise `located("position.scaling.field", ...)` for what does not fit."""

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        """RoPE's frequencies (K,) float64 -> those used instead, and the factor on cos and sin."""
        raise NotImplementedError

    def wavelengths(self, wavelengths: list[float]) -> list[float]:
        """Bounds from below of what becomes of these wavelengths, in plain numbers: `check` does without torch."""
        return wavelengths

    def canonical(self) -> dict[str, Any]:
        """What decides the function computed, however it was written."""
        return facts(self)

    def words(self) -> list[str]:
        return [self.type]
