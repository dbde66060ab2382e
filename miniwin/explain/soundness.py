"""Where each rotary layer of a model stands in its feasible range at a context of N tokens, from the spec alone.

The bounds are those of blocks/positions/rotary_bounds.py. They are applied as follows:

- To distances, not positions. A windowed (or chunked) layer never compares tokens further apart than its window, so its
  N is min(N, W). Sink tokens (`keep_first`) are seen from anywhere, so with them N stays N.
- A published P-RoPE turns a pair that straddles a period boundary by d - p, so its N is min(N, p) once N > p.
- A harmonic P-RoPE repeats by design: its window is held against the distances that it tells apart. Stability asks for
  a pair that hardly turns, and the sum of cosines over a whole period is zero, so these two bounds do not apply.
  Positions stay below one period, however long the context. With several periods the longest is judged: it alone must
  tell all distances in the window apart.
- Layers multiply in the stability bound. Those with a rotary encoding are counted.
- Precision is about absolute angles, so there N is N. MiniWin computes angles in float64 whatever the dtype. The
  figures say what would happen if angles were computed in `dtype`, as many implementations do in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.positions.rotary_bounds import (
    EPSILON,
    aliasing_base,
    angle_error,
    distinct_phases,
    effective_base,
    least_cosine_sum,
    precision_base,
    stability_base,
    straddling_share,
    turning,
    unfinished,
)
from miniwin.explain.layers import head_groups
from miniwin.specs import ModelSpec, UserError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


LONGEST = 1 << 24  # tokens; every distance is computed, which takes tens of seconds a block at this length


@dataclass(frozen=True)
class Criterion:
    """One bound: the value found, the bound it is held against, and the verdict. ratio: at most 1 if it is sound."""

    name: str
    value: float
    bound: float
    ratio: float
    sound: bool
    says: str

    def as_facts(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": "ok" if self.sound else "outside"}


@dataclass(frozen=True)
class Rotary:
    """The numbers of a rotary layer. layers: how many rotary layers the model has. seen: in keys; None is all.

    Of several periods, frequencies and period are those of the longest; `shorter` has the others.
    """

    frequencies: Tensor
    layers: int
    seen: int | None
    period: int | None = None
    harmonic: bool = False
    shorter: tuple[int, ...] = ()

    @property
    def base(self) -> float:
        return effective_base(self.frequencies)

    def visible(self, length: int) -> int:
        """Distances 0 .. visible - 1 occur between a query and a key that it sees."""
        return length if self.seen is None else min(self.seen, length)

    def reach(self, length: int) -> int:
        """Distances 0 .. reach - 1 occur between the angles by which query and key are turned."""
        folded = self.period is not None and not self.harmonic and length > self.period and self.visible(length) > 1
        return self.period if folded and self.period is not None else self.visible(length)

    def positions(self, length: int) -> int:
        """Queries and keys are turned by the angles of positions 0 .. positions - 1."""
        return length if self.period is None else min(length, self.period)

    # -- the bounds

    def aliasing(self, length: int) -> Criterion:
        """The slowest pair must complete no turn within the distances."""
        reach, bound = self.reach(length), 2 * math.pi * self.base
        return Criterion(
            "aliasing",
            reach,
            bound,
            aliasing_base(reach) / self.base,
            reach < bound,
            f"distances against 2 pi base; the slowest pair turns once in {self.slowest_wavelength:,.0f} tokens",
        )

    def stability(self, length: int) -> Criterion:
        """The slowest pair must hardly turn: cos(N / base), multiplied over the layers, must stay near 1."""
        reach = self.reach(length)
        bound = stability_base(reach, self.layers)
        return Criterion(
            "stability",
            self.base,
            bound,
            bound / self.base,
            self.base >= bound,
            f"base against N / arccos({EPSILON:g}^(1/L)), N {reach:,}, L {self.layers}; "
            f"a single layer needs {stability_base(reach):,.0f}",
        )

    def cosine_sum(self, length: int) -> Criterion:
        """A similar key must not get less than a random one at any distance."""
        reach = self.reach(length)
        least, first = least_cosine_sum(self.frequencies, reach)
        where = f"negative first at distance {first:,}" if first is not None else f"not negative below {reach:,}"
        return Criterion(
            "cosine sum", least, 0.0, 1 - least, first is None, f"least sum of cos(m theta), of its value at 0; {where}"
        )

    def precision(self, dtype: str) -> Criterion:
        """A step of the slowest pair must not be lost beside 1 in this dtype."""
        bound = precision_base(DTYPES[dtype])
        return Criterion(
            "precision", self.base, bound, self.base / bound, self.base < bound, f"base against 1 / epsilon of {dtype}"
        )

    def angle_error(self, length: int, dtype: str) -> Criterion:
        """The error of angles computed in this dtype must stay below half the step of the fastest pair."""
        top = self.positions(length)
        error = angle_error(self.frequencies, top, DTYPES[dtype])
        bound = float(turning(self.frequencies).max()) / 2
        return Criterion(
            "angle error",
            error,
            bound,
            error / bound,
            error < bound,
            f"radians at position {top - 1:,} if computed in {dtype}, against half the fastest pair's step",
        )

    def training(self, length: int, trained: int) -> Criterion:
        """Pairs that complete no turn in training must not meet longer distances than in training."""
        count, known, pairs = unfinished(self.frequencies, self.reach(trained)), self.reach(trained), self.frequencies
        new = self.reach(length) > known and count > 0
        which = f"{count} of {len(turning(pairs))} pairs complete no turn within the trained {known:,}"
        return Criterion(
            "trained turns",
            count,
            0.0 if self.reach(length) > known else len(turning(pairs)),
            2.0 if new else 1.0,
            not new,
            f"{which}; {'their angles beyond it are new' if new else 'no distance here is longer'}",
        )

    # -- of a periodic encoding

    def window_in_period(self, length: int) -> Criterion:
        """The window must not be longer than the distances that the encoding tells apart."""
        assert self.period is not None
        seen = self.visible(length)
        apart = distinct_phases(self.frequencies, self.period) if self.harmonic else self.period
        close = self.harmonic and apart < 2 * seen
        says = "window against the distances it tells apart"
        says += f"; from {2 * seen:,} on, far would not look like near" if close else ""
        within = [f"{period:,}" for period in self.shorter if period < seen]
        says += f"; these repeat within it: {', '.join(within)}" if within else ""
        return Criterion("window in period", seen, apart, seen / apart, seen <= apart, says)

    def straddling(self, length: int) -> Criterion:
        """Pairs of tokens across a period boundary must be turned as any other."""
        assert self.period is not None
        share = straddling_share(self.seen, self.period, length)
        seen = self.visible(length)
        rule = f"(W - 1) / 2p = {(seen - 1) / 2 / self.period:.3f}" if seen <= self.period else "W > p"
        effect = "harmless: turned as any other" if self.harmonic else "turned by d - p, not d"
        sound = self.harmonic or share == 0
        return Criterion(
            "straddling", share, 0.0, 1.0 if sound else 1 + share, sound, f"share of visible pairs, {rule}; {effect}"
        )

    def phases(self, length: int) -> Criterion:
        """There must be as many distinct phases as the window has keys."""
        assert self.period is not None
        count = distinct_phases(self.frequencies, self.period) if self.harmonic else self.period
        reach = self.visible(length)
        return Criterion("phases", count, reach, reach / count, count >= reach, "distinct phases against the window")

    @property
    def slowest_wavelength(self) -> float:
        return 2 * math.pi / float(turning(self.frequencies).min())

    def criteria(self, length: int, trained: int, dtype: str) -> list[Criterion]:
        if self.harmonic:
            own = [self.window_in_period(length), self.phases(length), self.straddling(length)]
            return [*own, self.angle_error(length, dtype)]
        rope = [self.aliasing(length), self.stability(length), self.cosine_sum(length), self.precision(dtype)]
        rope += [self.angle_error(length, dtype), self.training(length, trained)]
        if self.period is None:
            return rope
        return [self.window_in_period(length), self.phases(length), self.straddling(length), *rope]


def rotary_blocks(spec: ModelSpec) -> dict[str, Rotary | None]:
    """The rotary numbers of each block, in the order of the layers. None for a block in which nothing turns.

    A block whose heads have different encodings has an entry for each group of heads.
    """
    found = _turning_groups(spec)
    turning_letters = {letter for letter, _, _, theta in found.values() if theta is not None}
    layers = sum(letter in turning_letters for letter in spec.layout)
    blocks: dict[str, Rotary | None] = {}
    for label, (_, attention, position, theta) in found.items():
        periodic = getattr(position, "then", None) or position  # learned vectors first, then another encoding
        seen = None if attention.keep_first else attention.heads(spec.hidden_size).window
        harmonic = getattr(periodic, "harmonic", False)
        *shorter, longest = position.all_periods() or [None]
        blocks[label] = theta if theta is None else Rotary(theta, layers, seen, longest, harmonic, tuple(shorter))
    return blocks


def _turning_groups(spec: ModelSpec) -> dict[str, tuple[str, Any, Any, Tensor | None]]:
    """For each group of heads: its block's letter, attention, encoding, and its frequencies if any of them turns."""
    found: dict[str, tuple[str, Any, Any, Tensor | None]] = {}
    for letter in dict.fromkeys(spec.layout):
        attention: Any = spec.layer_specs[spec.layout.index(letter)].attention
        for label, group in head_groups(letter, attention, spec.hidden_size):
            theta = group.position.frequencies(group.heads)
            found[label] = (
                letter,
                attention,
                group.position,
                theta if theta is not None and (theta != 0).any() else None,
            )
    return found


def soundness(
    spec: ModelSpec, length: int, trained_length: int | None = None, dtype: str = "float32"
) -> list[dict[str, Any]]:
    """For each block of the model: its layers, whether it is rotary, and every criterion with value, bound and verdict.

    trained_length: the longest context in training; by default `length`, so that nothing is new to the model.

    Raises:
        UserError: an unknown dtype, or a length below 1 or above 16,777,216.
    """
    if dtype not in DTYPES:
        raise UserError(f"--angle-dtype: got '{dtype}'; expected one of {', '.join(DTYPES)}")
    trained = length if trained_length is None else trained_length
    for option, number in (("--length", length), ("--trained-length", trained)):
        if not 1 <= number <= LONGEST:
            raise UserError(f"{option}: got {number}; expected 1 to {LONGEST:,}")
    rows = []
    groups = _turning_groups(spec)
    for label, rotary in rotary_blocks(spec).items():
        letter, _, position, _ = groups[label]
        row: dict[str, Any] = {
            "block": label,
            "layers": [i for i, other in enumerate(spec.layout) if other == letter],
            "encoding": ", ".join(position.words()),
            "rotary": rotary is not None,
        }
        if rotary is None:
            row |= {"criteria": [], "says": _unturned(position.type)}
        else:
            criteria = [criterion.as_facts() for criterion in rotary.criteria(length, trained, dtype)]
            outside = [c["name"] for c in criteria if not c["sound"]]
            row |= {
                "distances": rotary.reach(length),
                "pairs": len(turning(rotary.frequencies)),
                "base": None if rotary.harmonic else rotary.base,
                "criteria": criteria,
                "says": f"outside: {', '.join(outside)}" if outside else "sound",
            }
        rows.append(row)
    return rows


def _unturned(kind: str) -> str:
    if kind == "nope":
        return "no positions at all: no angle to lose, at any length; order comes from the causal mask"
    if kind == "alibi":
        return "a bias that grows with distance: no angle to lose, at any length"
    return "nothing turns, so none of these bounds applies"


# What a search may constrain: the worst layer's ratio, at most 1 where all are sound; 0 where no layer is rotary.
Metric = Callable[[Rotary, int], float]
METRICS: dict[str, Metric] = {
    "rope_aliasing": lambda r, n: max(
        0.0 if r.harmonic else r.aliasing(n).ratio, r.window_in_period(n).ratio if r.period is not None else 0.0
    ),
    "rope_stability": lambda r, n: 0.0 if r.harmonic else r.stability(n).ratio,
    "rope_cosine_bound": lambda r, n: 0.0 if r.harmonic else r.cosine_sum(n).ratio,
    "rope_precision": lambda r, n: max(
        0.0 if r.harmonic else r.precision("float32").ratio, r.angle_error(n, "float32").ratio
    ),
}


def worst(spec: ModelSpec, metric: str, length: int) -> float:
    """A search's `rope_aliasing@N` and its kin.

    rope_aliasing      distances / (2 pi base); of a periodic encoding also distances / distances told apart
    rope_stability     (N / arccos(0.95^(1/L))) / base; a harmonic P-RoPE counts as 0
    rope_cosine_bound  1 - min B(m) / B(0): above 1 where the sum of cosines is negative somewhere; harmonic: 0
    rope_precision     in float32: base * epsilon, or angle error / half the fastest step, whichever is larger
    """
    if length > LONGEST:
        raise UserError(f"{metric}@{length}: got a length of {length:,}; expected at most {LONGEST:,}")
    return max((METRICS[metric](r, length) for r in rotary_blocks(spec).values() if r is not None), default=0.0)
