"""RoPE: rotary position embedding (Su et al., arXiv 2104.09864, eq. 34).

    theta_k = rope_theta^(-2k/d),  k = 0 .. d/2-1;   token t rotates channel pair k by t * theta_k

The score of a query at i and a key at j depends on i - j alone. Only the first d = partial_rotary_factor * head_dim
channels turn, with the frequencies of d (GPT-NeoX, arXiv 2204.06745). `scaling` changes the frequencies for contexts
beyond the trained one and may multiply cos and sin by a factor. Angles are computed in float64 and rounded once, so
that position 1e7 is still exact to float32.

The caller may give positions: real numbers (the centre of a span), or Gaussians with mean m and variance v. For these

    E[cos(theta t)] = exp(-theta^2 v / 2) cos(theta m),   E[sin(theta t)] = exp(-theta^2 v / 2) sin(theta m)

(the characteristic function of a normal variable). Query and key turn by these expectations, so each score is the
expected score over independent positions. The two positions of a token with itself count as independent too.

Cost: no parameters; two passes over queries and keys.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.positions.base import Heads, PositionEncoding, Positions, PositionSpec
from miniwin.blocks.positions.rotation import (
    Pairing,
    PartialFactor,
    angles,
    check_rotated,
    geometric,
    partial_facts,
    partial_words,
    rotate,
    rotated_channels,
)
from miniwin.blocks.positions.scaling import ScalingSpec
from miniwin.blocks.registry import POSITIONS, SCALINGS
from miniwin.blocks.spec import PositiveReal, facts

TABLE_LIMIT = 1 << 16  # positions kept as a table; beyond it angles are computed for the tokens at hand


class Rope(PositionEncoding):
    """Rotates by the position. frequencies (K,) float64; cos and sin are multiplied by attention_factor."""

    period: int | None = None  # set by a subclass: positions are taken modulo the period

    def __init__(self, frequencies: Tensor, pairing: str = "half", attention_factor: float = 1.0) -> None:
        super().__init__()
        # Not a buffer: nothing here is state, and the table grows with the longest context seen.
        self._frequencies = frequencies
        self._table: tuple[Tensor, Tensor] | None = None
        self.interleaved = pairing == "interleaved"
        self.attention_factor = attention_factor

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        cos, sin = self.shared(positions, torch.float64 if q.dtype == torch.float64 else torch.float32)
        if q.shape[1] == 1 and not torch.is_grad_enabled():  # decoding: one operation for both is faster than two
            both = self.turn(torch.cat((q, k), 2), cos, sin)
            return both[:, :, : q.shape[2]], both[:, :, q.shape[2] :]
        return self.turn(q, cos, sin), self.turn(k, cos, sin)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(x, cos, sin, self.interleaved)

    def angles(self, positions: Tensor) -> Tensor:
        """positions (...), integers or real numbers, already modulo the period -> angles (..., K) float64."""
        return angles(positions, self._moved("_frequencies", positions.device))

    def _moved(self, name: str, device: torch.device) -> Tensor:
        """One of the encoding's own tensors, moved to `device` and kept there: each move waits for the device."""
        own: Tensor = getattr(self, name)
        if own.device != device:
            own = own.to(device)
            if device.type != "meta" and not torch.compiler.is_compiling():
                setattr(self, name, own)
        return own

    def shared(self, positions: Positions, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`cos_sin`, computed once for all layers that rotate alike."""
        if torch.compiler.is_compiling():
            return self.cos_sin(positions, dtype)
        key = (self.alike, dtype)
        found: tuple[Tensor, Tensor] | None = positions.shared.get(key)
        if found is None:
            found = positions.shared[key] = self.cos_sin(positions, dtype)
        return found

    @cached_property
    def alike(self) -> tuple[Any, ...]:
        """A key, equal for encodings that rotate alike: those of one class whose attributes are equal."""
        if self.state_dict():
            return (id(self),)  # a learned rotation is like no other
        plain = nn.Module().__dict__
        own = sorted((name, value) for name, value in vars(self).items() if name not in plain and name != "_table")
        return type(self), *((n, v.cpu().numpy().tobytes() if isinstance(v, Tensor) else repr(v)) for n, v in own)

    def cos_sin(self, positions: Positions, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of the tokens' angles, each (1 or B, N, K), attenuated if positions have a variance."""
        if positions.mean is None:
            cos, sin = self._gathered(self._reduced(positions.index), dtype)
        else:
            cos, sin = self._computed(self._reduced(positions.mean), dtype)
        if positions.variance is not None:
            squared = self._moved("_frequencies", positions.variance.device) ** 2
            fade = torch.exp(positions.variance.double().unsqueeze(-1) * squared * -0.5)
            cos, sin = (cos * fade).to(dtype), (sin * fade).to(dtype)
        return cos, sin

    def _reduced(self, positions: Tensor) -> Tensor:
        return positions if self.period is None else positions % self.period

    def _computed(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        turn = self.angles(positions)
        cos, sin = turn.cos(), turn.sin()
        if self.attention_factor != 1:
            cos, sin = cos * self.attention_factor, sin * self.attention_factor
        return cos.to(dtype), sin.to(dtype)

    def _gathered(self, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of integer positions from a table: (1 or B, N) -> (1 or B, N, K) each."""
        # A short period bounds the table. Then the positions need not be read, which would wait for a GPU.
        bounded = self.period is not None and self.period <= TABLE_LIMIT
        # Code that reads a number from a tensor does not compile; code without a table compiles into one pass.
        if index.is_meta or index.numel() == 0 or (torch.compiler.is_compiling() and not bounded):
            return self._computed(index, dtype)
        top = self.period if self.period is not None and bounded else int(index.max()) + 1
        if top > TABLE_LIMIT:
            return self._computed(index, dtype)
        table = self._table
        if table is None or len(table[0]) < top or table[0].device != index.device or table[0].dtype != dtype:
            size = top if bounded else min(TABLE_LIMIT, 1 << max(8, (top - 1).bit_length()))
            table = self._table = self._computed(torch.arange(size, device=index.device), dtype)
        return table[0][index], table[1][index]


@POSITIONS.register
class RopeSpec(PositionSpec):
    """`position: {type: rope, rope_theta: 10000, scaling: {type: linear, factor: 8}}`"""

    LATER = frozenset({"partial_rotary_factor", "pairing", "scaling"})

    type: Literal["rope"] = "rope"
    rope_theta: PositiveReal = 10000.0
    partial_rotary_factor: PartialFactor = 1.0
    pairing: Pairing = "half"
    scaling: SCALINGS.field() | None = None  # type: ignore[valid-type]

    def check(self, heads: Heads) -> None:
        check_rotated(heads.head_dim, self.partial_rotary_factor)
        if self._scaling is not None:
            self._scaling.check(self.rope_theta, self._rotary_dim(heads))

    def build(self, heads: Heads) -> Rope:
        frequencies, factor = self.scaled(heads)
        return Rope(frequencies, self.pairing, factor)

    def scaled(self, heads: Heads) -> tuple[Tensor, float]:
        """The frequencies of the pairs (K,) float64, and the factor on cos and sin."""
        return scaled_frequencies(self.rope_theta, self._rotary_dim(heads), self._scaling)

    def frequencies(self, heads: Heads) -> Tensor:
        return self.scaled(heads)[0]

    def canonical(self, heads: Heads) -> dict[str, Any]:
        data = facts(self) | partial_facts(heads.head_dim, self.partial_rotary_factor)
        return data if self._scaling is None else data | {"scaling": self._scaling.canonical()}

    def words(self) -> list[str]:
        scaling = [] if self._scaling is None else self._scaling.words()
        return [
            self.type,
            f"theta {self.rope_theta:g}",
            *scaling,
            *partial_words(self.partial_rotary_factor, self.pairing),
        ]

    def _rotary_dim(self, heads: Heads) -> int:
        return rotated_channels(heads.head_dim, self.partial_rotary_factor)

    @property
    def _scaling(self) -> ScalingSpec | None:
        return self.scaling


def scaled_frequencies(rope_theta: float, rotary_dim: int, scaling: ScalingSpec | None) -> tuple[Tensor, float]:
    """RoPE's frequencies (K,) float64 after scaling, and the factor on cos and sin."""
    frequencies = geometric(rope_theta, rotary_dim)
    return (frequencies, 1.0) if scaling is None else scaling.apply(frequencies, rope_theta, rotary_dim)
