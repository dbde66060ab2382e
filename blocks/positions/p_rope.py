"""P-RoPE: rotary positions taken modulo a period p, in two forms.

Published (Huo, arXiv 2605.27980; `harmonic: false`): token t is rotated by (t mod p) * theta_k with the frequencies of
RoPE. It is not a function of distance: a pair that straddles a period boundary is turned by d - p instead of d.

Harmonic (ours; the default): theta_k = 2*pi*n_k / p with integers n_k, so that taking t modulo p changes nothing. The
encoding is exactly periodic and exactly relative; distances 0 .. p-1 are distinct when some n_k = 1. The kernel is
cyclic (distance p - 1 looks like -1), hence W <= p is required and p >= 2W is better.

Which integers: `geometric` (default) snaps a geometric series from p/2 (alternate tokens differ most) down to 1 to
distinct integers, `all` takes 1, 2, 3, ..., a list takes what it says. Positions stay below p: the table is finite
and exact at any length of context.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from miniwin.blocks.positions.base import angles, located
from miniwin.blocks.positions.rope import Rope, check_even, geometric
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveInt, PositiveReal, Strict


def snapped_harmonics(count: int, period: int) -> list[int]:
    """`count` integers in 1 .. p/2, near a geometric series from p/2 down to 1, distinct as far as there are enough.

    More pairs than integers (small periods): every integer once, then again from the top.
    """
    top = max(period // 2, 1)
    if count == 1:
        return [1]
    if count >= top:
        return [top - i % top for i in range(count)]
    # Walk down the series; where rounding meets an integer already taken, take the next one below, yet leave one
    # integer for each pair still to come.
    chosen: list[int] = []
    for k in range(count):
        ideal = round(top ** (1 - k / (count - 1)))
        highest = chosen[-1] - 1 if chosen else top
        chosen.append(max(min(ideal, highest), count - k))
    return chosen


class PeriodicRope(Rope):
    """Rotates by the position modulo the period."""

    def __init__(self, frequencies: Tensor, period: int) -> None:
        super().__init__(frequencies)
        self.period = period

    def _cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        if positions.is_meta:
            return super()._cos_sin(positions)
        if self._table is None or self._table[0].device != positions.device:
            turn = angles(torch.arange(self.period, device=positions.device), self._frequencies)
            self._table = (turn.cos().float(), turn.sin().float())
        index = positions % self.period
        return self._table[0][index], self._table[1][index]


@POSITIONS.register
class PeriodicRopeSpec(Strict):
    """`position: {type: p-rope, period: 128}`; `harmonic: false` is the published form, with its `rope_theta`."""

    type: Literal["p-rope"] = "p-rope"
    period: Annotated[PositiveInt, Field(le=2**24)]  # the length of a table
    harmonic: bool = True
    harmonics: Literal["geometric", "all"] | list[PositiveInt] | None = None
    rope_theta: PositiveReal | None = None

    def check(self, head_dim: int, window: int | None) -> None:
        check_even(head_dim)
        if not self.harmonic:
            if self.harmonics is not None:
                raise located(
                    "position.harmonics", "only a harmonic p-rope has harmonics; remove it, or harmonic: false"
                )
            return
        if self.rope_theta is not None:
            raise located("position.rope_theta", "a harmonic p-rope takes its frequencies from the period; remove it")
        if window is None:
            raise located(
                "position.period",
                "a global layer (window: null) sees distances beyond any period; set a window of at most the period, "
                "or use type: nope",
            )
        if self.period < window:
            raise located(
                "position.period",
                f"got period {self.period} with window {window}; a harmonic p-rope needs period >= window, and "
                f"period >= {2 * window} (twice the window) is better",
            )
        count = head_dim // 2
        if isinstance(self.harmonics, list):
            if len(self.harmonics) != count:
                raise located(
                    "position.harmonics", f"got {len(self.harmonics)} harmonics; head_dim {head_dim} needs {count}"
                )
            if max(self.harmonics) >= self.period:
                raise located(
                    "position.harmonics", f"got {max(self.harmonics)}; harmonics lie between 1 and period - 1"
                )
            repeats = self.period // math.gcd(self.period, *self.harmonics)
            if repeats < window:
                raise located(
                    "position.harmonics",
                    f"got {self.harmonics}; with them the encoding repeats every {repeats} tokens, and the window is "
                    f"{window}: include 1, or integers without a common factor",
                )
        if self.harmonics == "all" and count > self.period // 2:
            raise located(
                "position.harmonics",
                f"'all' needs {count} distinct integers up to period / 2 = {self.period // 2}; use geometric, a longer "
                "period or a smaller head_dim",
            )

    def canonical(self, head_dim: int) -> dict[str, object]:
        """What the encoding is, however it was written: the frequencies decide."""
        if self.harmonic:
            return {"type": self.type, "period": self.period, "harmonics": self.integers(head_dim)}
        return {"type": self.type, "period": self.period, "rope_theta": self.theta}

    @property
    def theta(self) -> float:
        return 10000.0 if self.rope_theta is None else self.rope_theta

    def integers(self, head_dim: int) -> list[int]:
        """The harmonics n_k of the D/2 channel pairs."""
        if isinstance(self.harmonics, list):
            return list(self.harmonics)
        if self.harmonics == "all":
            return list(range(1, head_dim // 2 + 1))
        return snapped_harmonics(head_dim // 2, self.period)

    def build(self, head_dim: int, num_heads: int, window: int | None) -> PeriodicRope:
        if not self.harmonic:
            return PeriodicRope(geometric(self.theta, head_dim), self.period)
        numbers = torch.tensor(self.integers(head_dim), dtype=torch.float64, device="cpu")
        return PeriodicRope(numbers * (2 * math.pi / self.period), self.period)

    def parameters(self, num_heads: int) -> int:
        return 0
