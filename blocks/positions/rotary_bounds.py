"""Is a rotary encoding sound at a context of N tokens? The bounds of two papers, as functions of its frequencies.

    aliasing   N < 2*pi*base                      arXiv 2602.10959: the slowest pair completes no turn
    stability  base >= N / arccos(eps^(1/L))      arXiv 2602.10959: the slowest pair stays coherent over L layers
    precision  base < 1 / eps_mach                arXiv 2602.10959: one step of the slowest pair is more than rounding
    cosine sum B(m) = sum_k cos(m theta_k) >= 0   arXiv 2405.14591, eq. 9-11, for 0 <= m < N

The first paper calls the range between the lower bounds and the upper bound the Goldilocks zone. The paper takes 1/base
for the lowest frequency; with K pairs it is base^-(1 - 1/K). `effective_base` inverts the latter. So a plain RoPE is
judged by its rope_theta, as in the paper, and a scaled RoPE by the base of a plain one with the same slowest pair. The
bounds are rules of thumb, not theorems about models. They rest on strong assumptions: one pair speaks for all, and
layers multiply. A spec outside the zone deserves a closer look.

A published P-RoPE (arXiv 2605.27980) has one more defect to measure: the share of visible pairs of tokens with a period
boundary between them, (W - 1) / 2p. Two measures are our own. One is the angle error when position times frequency is
computed in a dtype. The other is the number of pairs of channels that complete no turn within the trained distances:
their later angles are new to the model (as in arXiv 2309.00071).

theta: frequencies (K,) float64, radians per token. All functions compute in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 0.95  # coherence that the slowest pair must keep over all layers: the value of arXiv 2602.10959's case study
_CHUNK = 16_384  # distances at once
_NEAR = 1_024  # positions at which rounding is measured


def turning(frequencies: Tensor) -> Tensor:
    """The frequencies that turn at all, in float64."""
    theta = frequencies.double().abs()
    return theta[theta > 0]


def effective_base(frequencies: Tensor) -> float:
    """The rope_theta of a plain RoPE with as many pairs and the same slowest pair."""
    theta = turning(frequencies)
    slowest, pairs = float(theta.min()), len(theta)
    return float(slowest ** (-pairs / (pairs - 1))) if pairs > 1 else 1 / slowest


def aliasing_base(length: int) -> float:
    """The base above which the slowest pair completes no turn within `length` tokens."""
    return length / (2 * math.pi)


def stability_base(length: int, layers: int = 1, epsilon: float = EPSILON) -> float:
    """The least base at which cos(length / base), multiplied over the layers, stays at epsilon or more."""
    return length / math.acos(epsilon ** (1 / layers))


def precision_base(dtype: torch.dtype) -> float:
    """The base at which a step of the slowest pair is lost beside 1 in this dtype."""
    return 1 / torch.finfo(dtype).eps


def zone(length: int, layers: int, dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """The least and the largest sound base. The zone is empty if the first is not below the second."""
    return max(aliasing_base(length), stability_base(length, layers)), precision_base(dtype)


def cosine_sum(frequencies: Tensor, distances: Tensor) -> Tensor:
    """B(m) for each distance m, in the shape of `distances`: how much more a similar key gets than a random key."""
    m = distances.double().unsqueeze(-1)  # (..., 1)
    return (m * turning(frequencies)).cos_().sum(-1)


def least_cosine_sum(frequencies: Tensor, length: int) -> tuple[float, int | None]:
    """The least B(m) of 0 <= m < length, as a share of B(0), and the first m at which B is negative (None: nowhere)."""
    least, first = 1.0, None
    for start in range(0, length, _CHUNK):
        sums = cosine_sum(frequencies, torch.arange(start, min(start + _CHUNK, length)))
        least = min(least, float(sums.min()) / len(turning(frequencies)))
        negative = (sums < 0).nonzero()
        if first is None and len(negative):
            first = start + int(negative[0])
    return least, first


def least_base(length: int, pairs: int) -> float:
    """The least base at which a plain RoPE of so many pairs has B(m) >= 0 for 0 <= m <= length. It has two digits.

    A larger base may fail again, since B touches zero in many places.
    """
    for power in range(1, 12):
        for digits in range(10, 100):
            base = float(digits * 10 ** (power - 1))
            theta = base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
            far = cosine_sum(theta, torch.arange(max(length - 512, 0), length + 1))  # where most bases fail
            if float(far.min()) >= 0 and least_cosine_sum(theta, length + 1)[1] is None:
                return base
    return math.inf


def unfinished(frequencies: Tensor, distances: int) -> int:
    """The number of pairs that complete no turn within so many tokens."""
    return int((turning(frequencies) * distances < 2 * math.pi * (1 - 1e-12)).sum())


def angle_error(frequencies: Tensor, length: int, dtype: torch.dtype) -> float:
    """The largest error in radians, over the last positions below `length`, when position and frequency are rounded to
    `dtype` and multiplied in it. Infinite where a position overflows."""
    theta = turning(frequencies)
    positions = torch.arange(max(length - _NEAR, 0), length, dtype=torch.float64).unsqueeze(-1)  # (n, 1)
    rounded = (positions.to(dtype) * theta.to(dtype)).double()
    error = (rounded - positions * theta).abs()
    return float(torch.nan_to_num(error, nan=math.inf, posinf=math.inf).max())


def distinct_phases(frequencies: Tensor, period: int) -> int:
    """Distances that a harmonic encoding tells apart: the period over the greatest common divisor of its harmonics."""
    harmonics = (frequencies.double() * period / (2 * math.pi)).round().long().tolist()
    return period // math.gcd(period, *harmonics)


def straddling_share(window: int | None, period: int, length: int) -> float:
    """The share of a sequence's visible pairs (i, j), j = i included, with a period boundary between j and i.

    It tends to (W - 1) / 2p as the sequence grows, for W <= p.
    """
    reach = length if window is None else min(window, length)
    d = torch.arange(reach)  # distances; length - d queries have a key so far back
    phases = d.clamp(max=period)  # a query at phase a sees a key d back across a boundary iff a < d
    before = (length // period) * phases + torch.minimum(torch.tensor(length % period), phases)
    skipped = (d // period) * phases + torch.minimum(d % period, phases)  # queries i < d have no such key
    return float((before - skipped).sum()) / float((length - d).sum())
