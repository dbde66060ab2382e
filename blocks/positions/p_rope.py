"""P-RoPE: rotary positions taken modulo a period p, in two forms.

Published (Huo, arXiv 2605.27980; `harmonic: false`): token t is rotated by (t mod p) * theta_k with the frequencies of
RoPE. A score is then no function of distance: where a period boundary lies between query and key, the angle is that of
d - p instead of d.

Harmonic (ours; the default): theta_k = 2*pi*n_k / p with integers n_k, so that taking t modulo p changes nothing. The
encoding is exactly periodic and exactly relative; distances 0 .. p-1 are distinct when some n_k = 1. The kernel is
cyclic (distance p - 1 looks like -1), hence W <= p is required and p >= 2W is better.

Which integers n_k: `geometric` (default) rounds a geometric series from p/2 (where alternate tokens differ most) down
to 1 to distinct integers; `all` takes 1, 2, 3, ...; a list names them. Positions stay below p, so the table of angles
is finite and exact at any length of context.

Several periods (harmonic only): `periods` deals them out over the key/value heads, or with `gate: true` each query
mixes them (see several_periods.py). The longest must cover the window: it tells all visible keys apart. A shorter one
may repeat within the window, where it looks alike at keys p tokens apart.

partial_rotary_factor and pairing are those of RoPE, for both forms. Positions that the caller gives are real numbers,
taken modulo p. `pairing: half-mismatched` is the published code's partial rotary (see half_mismatched.py).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec, located
from miniwin.blocks.positions.half_mismatched import first_of_the_whole_head, turn_mismatched
from miniwin.blocks.positions.rope import Rope
from miniwin.blocks.positions.rotation import (
    PartialFactor,
    check_rotated,
    geometric,
    partial_facts,
    partial_words,
    rotated_channels,
)
from miniwin.blocks.positions.several_periods import GatedPeriods, PeriodPerHead
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import PositiveInt, PositiveReal

Period = Annotated[PositiveInt, Field(le=2**24)]  # the length of a table


def snapped_harmonics(count: int, period: int) -> list[int]:
    """`count` integers in 1 .. p/2, near a geometric series from p/2 down to 1, distinct if there are enough.

    With more pairs than integers (small periods), every integer comes once, then again from the top.
    """
    top = max(period // 2, 1)
    if count == 1:
        return [1]
    if count >= top:
        return [top - i % top for i in range(count)]
    # Walk down the series. If a rounded value is already taken, take the next integer below it; always leave one
    # integer for each pair still to come.
    chosen: list[int] = []
    for k in range(count):
        ideal = round(top ** (1 - k / (count - 1)))
        highest = chosen[-1] - 1 if chosen else top
        chosen.append(max(min(ideal, highest), count - k))
    return chosen


class PeriodicRope(Rope):
    """Rotates by the position modulo the period. harmonic: every frequency is a multiple of 2*pi / period."""

    def __init__(self, frequencies: Tensor, period: int, pairing: str = "half", harmonic: bool = True) -> None:
        super().__init__(frequencies, pairing)
        self.period = period
        if not harmonic:
            self.needs_exact = (
                "the angle of a published p-rope jumps where a period ends, so that a spread position has no "
                "attenuated angle; use harmonic: true, or leave the variance out"
            )


class MismatchedRope(PeriodicRope):
    """The published defect: frequencies (d,), one for each channel in place of one for each pair."""

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return turn_mismatched(x, cos, sin)


@POSITIONS.register
class PeriodicRopeSpec(PositionSpec):
    """`position: {type: p-rope, period: 128}`; `harmonic: false` is the published form, with its `rope_theta`.

    Several periods: `{type: p-rope, periods: [16, 64, 256]}`, dealt out over the heads, or mixed with `gate: true`.
    """

    LATER = frozenset({"partial_rotary_factor", "pairing", "periods", "gate"})

    type: Literal["p-rope"] = "p-rope"
    period: Period | None = None
    periods: Annotated[list[Period], Field(min_length=1)] | None = None
    gate: bool = False
    harmonic: bool = True
    harmonics: Literal["geometric", "all"] | list[PositiveInt] | None = None
    rope_theta: PositiveReal | None = None
    partial_rotary_factor: PartialFactor = 1.0
    pairing: Literal["half", "interleaved", "half-mismatched"] = "half"

    def check(self, heads: Heads) -> None:
        self._check_periods(heads)
        check_rotated(heads.head_dim, self.partial_rotary_factor)
        if self.pairing == "half-mismatched" and (self.harmonic or self.partial_rotary_factor == 1):
            raise located(
                "position.pairing",
                "half-mismatched is how the published MiniWin turns a part of each head; it needs harmonic: false and "
                "partial_rotary_factor below 1: use half",
            )
        if not self.harmonic:
            if self.harmonics is not None:
                raise located(
                    "position.harmonics", "only a harmonic p-rope has harmonics; remove harmonics, or harmonic: false"
                )
            return
        if self.rope_theta is not None:
            raise located("position.rope_theta", "a harmonic p-rope takes its frequencies from the period; remove it")
        self._check_window(heads)
        for period in self.all_periods():
            self._check_harmonics(heads, period)

    def _check_periods(self, heads: Heads) -> None:
        if self.periods is None:
            if self.period is None:
                raise located(
                    "position.period", "this field is required, and missing; or give periods: a list, for the heads"
                )
            if self.gate:
                raise located(
                    "position.gate", f"got true with one period; a query mixes several: periods: [{self.period}, ...]"
                )
            return
        if self.period is not None:
            raise located("position.period", f"got {self.period} beside periods {self.periods}; remove one of them")
        if not self.harmonic:
            raise located(
                "position.periods", "only a harmonic p-rope has several; remove harmonic: false, or set one period"
            )
        if not self.gate:
            if len(self.periods) > heads.num_kv_heads:
                raise located(
                    "position.periods",
                    f"got {len(self.periods)} periods for {heads.num_kv_heads} key/value heads; each head has one: use "
                    f"at most {heads.num_kv_heads}, more num_kv_heads, or gate: true",
                )
        elif len(set(self.periods)) < max(len(self.periods), 2):
            raise located(
                "position.periods", f"got {self.periods} with gate: true; a query mixes two or more, each once"
            )

    def _check_window(self, heads: Heads) -> None:
        window, several = heads.window, self.periods is not None
        field, longest = "position.periods" if several else "position.period", self.longest
        if window is None:
            raise located(
                field,
                "a global layer (window: null) sees distances beyond any period; set a window of at most the "
                f"{'longest ' if several else ''}period, or use type: nope",
            )
        if longest >= window:
            return
        if several:
            raise located(
                field,
                f"got {self.periods} with window {window}; the longest must be at least the window, so that its heads "
                "tell all keys apart: add a longer one, or make the window smaller",
            )
        raise located(
            field,
            f"got period {longest} with window {window}; a harmonic p-rope needs period >= window, and "
            f"period >= {2 * window} (twice the window) is better",
        )

    def _check_harmonics(self, heads: Heads, period: int) -> None:
        count, window = self._rotary_dim(heads) // 2, heads.window
        assert window is not None
        if isinstance(self.harmonics, list):
            if len(self.harmonics) != count:
                part = "" if self.partial_rotary_factor == 1 else f", {2 * count} channels of which turn,"
                raise located(
                    "position.harmonics",
                    f"got {len(self.harmonics)} harmonics; head_dim {heads.head_dim}{part} needs {count}",
                )
            if max(self.harmonics) >= period:
                of = "period" if self.periods is None else f"period {period}"
                raise located("position.harmonics", f"got {max(self.harmonics)}; harmonics lie between 1 and {of} - 1")
            repeats = period // math.gcd(period, *self.harmonics)
            if period == self.longest and repeats < window:
                raise located(
                    "position.harmonics",
                    f"got {self.harmonics}; with them the encoding repeats every {repeats} tokens, and the window is "
                    f"{window}: include 1, or integers without a common factor",
                )
        if self.harmonics == "all" and count > period // 2:
            raise located(
                "position.harmonics",
                f"'all' needs {count} distinct integers up to period / 2 = {period // 2}; use geometric, a longer "
                "period or a smaller head_dim",
            )

    def canonical(self, heads: Heads) -> dict[str, Any]:
        """The facts that decide the encoding: the frequencies, whichever fields they come from."""
        data: dict[str, Any] = {"type": self.type}
        each = self._mixed if self.gate else self.dealt(heads)
        if self.gate or len(set(each)) > 1:
            data |= {"periods": each, "harmonics": [self.integers(heads, period) for period in each]}
            data |= {"gate": True} if self.gate else {}
        else:
            data |= {"period": each[0]}
            data |= {"harmonics": self.integers(heads, each[0])} if self.harmonic else {"rope_theta": self.theta}
        data |= {} if self.pairing == "half" else {"pairing": self.pairing}
        return data | partial_facts(heads.head_dim, self.partial_rotary_factor)

    @property
    def theta(self) -> float:
        return 10000.0 if self.rope_theta is None else self.rope_theta

    @property
    def _mixed(self) -> list[int]:
        """The periods as the spec lists them."""
        if self.periods is not None:
            return list(self.periods)
        assert self.period is not None
        return [self.period]

    @property
    def longest(self) -> int:
        return max(self._mixed)

    def dealt(self, heads: Heads) -> list[int]:
        """The period of each key/value head: the list is dealt out in turn."""
        return [self._mixed[head % len(self._mixed)] for head in range(heads.num_kv_heads)]

    def all_periods(self) -> list[int]:
        return sorted(set(self._mixed))

    def integers(self, heads: Heads, period: int) -> list[int]:
        """The harmonics n_k of the channel pairs."""
        count = self._rotary_dim(heads) // 2
        if isinstance(self.harmonics, list):
            return list(self.harmonics)
        if self.harmonics == "all":
            return list(range(1, count + 1))
        return snapped_harmonics(count, period)

    def frequencies(self, heads: Heads) -> Tensor:
        """(K,) float64, one for each pair; of several periods, those of the longest.

        A half-mismatched encoding has no pairs: (d,), one for each channel.
        """
        return self._frequencies(heads, self.longest)

    def _frequencies(self, heads: Heads, period: int) -> Tensor:
        if self.harmonic:
            numbers = torch.tensor(self.integers(heads, period), dtype=torch.float64, device="cpu")
            return numbers * (2 * math.pi / period)
        if self.pairing == "half-mismatched":
            return first_of_the_whole_head(self.theta, heads.head_dim, self._rotary_dim(heads))
        return geometric(self.theta, self._rotary_dim(heads))

    def _rope(self, heads: Heads, period: int) -> PeriodicRope:
        made = MismatchedRope if self.pairing == "half-mismatched" else PeriodicRope
        return made(self._frequencies(heads, period), period, self.pairing, self.harmonic)

    def build(self, heads: Heads) -> PositionEncoding:
        if self.gate:
            ropes = [self._rope(heads, period) for period in self._mixed]
            return GatedPeriods(ropes, self._rotary_dim(heads), heads.num_heads, heads.head_dim)
        dealt = self.dealt(heads)
        each = sorted(set(dealt))
        if len(each) == 1:
            return self._rope(heads, each[0])
        ropes = [self._rope(heads, period) for period in each]
        return PeriodPerHead(ropes, [each.index(period) for period in dealt], heads.num_heads)

    def parameters(self, heads: Heads) -> int:
        return heads.num_heads * len(self._mixed) * (heads.head_dim + 1) if self.gate else 0

    def flops(self, heads: Heads) -> float:
        return 2.0 * heads.num_heads * len(self._mixed) * heads.head_dim if self.gate else 0.0

    def key_dim(self, heads: Heads) -> int:
        return heads.head_dim + ((len(self._mixed) - 1) * self._rotary_dim(heads) if self.gate else 0)

    def words(self) -> list[str]:
        form = ["harmonic"] if self.harmonic else ["published", f"theta {self.theta:g}"]
        form += ["gated"] if self.gate else []
        return [self.type, *form, *partial_words(self.partial_rotary_factor, self.pairing)]

    def _rotary_dim(self, heads: Heads) -> int:
        return rotated_channels(heads.head_dim, self.partial_rotary_factor)
