"""The contract of a RoPE scaling: new frequencies, and a factor on cos and sin (its square multiplies scores).

A scaling is fixed in the spec and never depends on the length of the sequence at hand. Other implementations switch
with that length. A token's rotation then changes when more tokens follow: a prefill disagrees with decoding, and keys
already cached are wrong. If a scheme needs a length, the spec names one.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from miniwin.blocks.spec import Real, Strict, facts

# How many times longer the context becomes. No scheme here is meant to shrink it, so at least 1. The upper bound keeps
# powers of the factor finite.
Factor = Annotated[Real, Field(ge=1, le=1e9)]


class ScalingSpec(Strict):
    """Base of every scaling's spec."""

    type: str

    def check(self, rope_theta: float, rotary_dim: int) -> None:
        """Raise `located("position.scaling.field", ...)` for what does not fit."""

    def apply(self, frequencies: Tensor, rope_theta: float, rotary_dim: int) -> tuple[Tensor, float]:
        """RoPE's frequencies (K,) float64 -> the scaled frequencies (K,) float64, and the factor on cos and sin."""
        raise NotImplementedError

    def wavelengths(self, wavelengths: list[float]) -> list[float]:
        """Lower bounds of these wavelengths after scaling. They are plain numbers, so that `check` needs no torch."""
        return wavelengths

    def canonical(self) -> dict[str, Any]:
        """The facts that decide the computed function. Specs of the same function have equal ones."""
        return facts(self)

    def words(self) -> list[str]:
        return [self.type]
