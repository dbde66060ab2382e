"""Resonance RoPE: wavelengths rounded to whole tokens (Wang et al., arXiv 2403.00071).

    lambda_k = round(2 pi / theta_k);   token t rotates channel pair k by 2 pi (t mod lambda_k) / lambda_k

A pair whose wavelength fits into the trained context then meets no new angle beyond it. Only the slow pairs are left to
extrapolate. The encoding stays exactly relative and costs as much as RoPE. A `scaling` acts on the frequencies before
wavelengths are rounded, as the paper does with YaRN.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from miniwin.blocks.positions.base import Heads, PositionSpec, located
from miniwin.blocks.positions.rope import Rope, scaled_frequencies
from miniwin.blocks.positions.rotation import (
    Pairing,
    PartialFactor,
    check_rotated,
    partial_facts,
    partial_words,
    rotated_channels,
)
from miniwin.blocks.positions.scaling import ScalingSpec
from miniwin.blocks.registry import POSITIONS, SCALINGS
from miniwin.blocks.spec import PositiveReal, facts


class Resonance(Rope):
    """wavelengths (K,) float64: integers, in tokens."""

    def __init__(self, wavelengths: Tensor, pairing: str = "half", attention_factor: float = 1.0) -> None:
        super().__init__(2 * math.pi / wavelengths, pairing, attention_factor)
        self._wavelengths = wavelengths

    def angles(self, positions: Tensor) -> Tensor:
        # The remainder comes first: angles are exact at any position, while a large product would be rounded.
        wavelengths = self._moved("_wavelengths", positions.device)
        return positions.to(torch.float64).unsqueeze(-1).remainder(wavelengths) * (2 * math.pi / wavelengths)


@POSITIONS.register
class ResonanceSpec(PositionSpec):
    """`position: {type: resonance, rope_theta: 10000}`"""

    type: Literal["resonance"] = "resonance"
    rope_theta: PositiveReal = 10000.0
    partial_rotary_factor: PartialFactor = 1.0
    pairing: Pairing = "half"
    scaling: SCALINGS.field() | None = None  # type: ignore[valid-type]

    def check(self, heads: Heads) -> None:
        check_rotated(heads.head_dim, self.partial_rotary_factor)
        rotary_dim = rotated_channels(heads.head_dim, self.partial_rotary_factor)
        wavelengths = [2 * math.pi * self.rope_theta ** (k / rotary_dim) for k in range(0, rotary_dim, 2)]
        if self._scaling is not None:
            self._scaling.check(self.rope_theta, rotary_dim)
            wavelengths = self._scaling.wavelengths(wavelengths)
        shortest = min(wavelengths)
        if shortest < 1.5:
            raise located(
                "position.rope_theta",
                f"got {self.rope_theta:g}, with which a wavelength rounds to {round(shortest)} tokens; a pair needs at "
                "least 2 to turn at all: without scaling, a rope_theta of 1 or more will do",
            )

    def build(self, heads: Heads) -> Resonance:
        wavelengths, factor = self._rounded(heads)
        return Resonance(wavelengths, self.pairing, factor)

    def frequencies(self, heads: Heads) -> Tensor:
        return 2 * math.pi / self._rounded(heads)[0]

    def canonical(self, heads: Heads) -> dict[str, Any]:
        data = facts(self)
        del data["partial_rotary_factor"]
        data |= partial_facts(heads.head_dim, self.partial_rotary_factor)
        return data if self._scaling is None else data | {"scaling": self._scaling.canonical()}

    def words(self) -> list[str]:
        scaling = [] if self._scaling is None else self._scaling.words()
        return [
            self.type,
            f"theta {self.rope_theta:g}",
            *scaling,
            *partial_words(self.partial_rotary_factor, self.pairing),
        ]

    def _rounded(self, heads: Heads) -> tuple[Tensor, float]:
        """The rounded wavelengths of the pairs (K,) float64, and the factor on cos and sin."""
        rotary_dim = rotated_channels(heads.head_dim, self.partial_rotary_factor)
        frequencies, factor = scaled_frequencies(self.rope_theta, rotary_dim, self._scaling)
        return (2 * math.pi / frequencies).round(), factor

    @property
    def _scaling(self) -> ScalingSpec | None:
        return self.scaling
