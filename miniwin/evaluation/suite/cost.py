"""What reading and writing cost: seconds for a prompt, for a token after it, how the first grows, and cache bytes.

    prefill_exponent     the slope of log seconds against log length; 1 is linear, 2 quadratic. Each repetition has its
                         own slope over all lengths, and the interval is over repetitions

Times have a median. Its interval lies between two of the sorted repetitions, by the binomial distribution, whatever the
distribution of times is (Conover 1999, Practical Nonparametric Statistics, 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import LEVEL, Interval
from miniwin.evaluation.speed import timings
from miniwin.evaluation.suite.part import Part, Planned, part
from miniwin.evaluation.suite.result import SuiteRow
from miniwin.evaluation.suite.rows import row
from miniwin.inference import Advance

PREFILL, DECODE = "prefill_seconds", "decode_seconds"


def speed_parts(planned: Planned) -> Iterator[Part]:
    spec = planned.suite.speed
    if spec is not None:
        for length, _ in planned.lengths(spec.lengths, "speed", "lengths"):
            yield _timed(planned, length, spec.repeats, spec.decode_tokens)


def _timed(planned: Planned, length: int, repeats: int, decode_tokens: int) -> Part:
    setting = {"repeats": repeats, "decode_tokens": decode_tokens}

    def time_row(measure: str, seconds: Sequence[float]) -> SuiteRow:
        return row(
            measure,
            length,
            planned.trained,
            median_of(seconds),
            of="repetitions",
            unit="seconds",
            better="lower",
            setting=setting,
            samples={"seconds": list(seconds)},
        )

    def run(advance: Advance) -> list[SuiteRow]:
        found = timings(planned.model, length, decode_tokens=decode_tokens, repeats=repeats, advance=advance)
        return [time_row(PREFILL, found.prefill), time_row(DECODE, found.decode)]

    return part(PREFILL, length, (repeats + 1) * (length + decode_tokens), run)


def exponent_rows(rows: Sequence[SuiteRow]) -> list[SuiteRow]:
    """The exponent of prefill times, from their rows; none where fewer than two lengths were timed."""
    timed = [one for one in rows if one.measure == PREFILL and one.length is not None]
    if len(timed) < 2:
        return []
    across = np.log([one.length for one in timed if one.length is not None])  # (L,)
    along = across - across.mean()
    seconds = np.array([one.samples["seconds"] for one in timed], dtype=np.float64)  # (L, R)
    slopes = along @ np.log(seconds) / (along @ along)  # (R,)
    return [
        row(
            "prefill_exponent",
            None,
            None,
            intervals.mean(slopes),
            of="repetitions",
            unit="exponent",
            better="lower",
            setting={**timed[0].setting, "lengths": [one.length for one in timed]},
            samples={"exponent": slopes.tolist()},
            detail={"points": [{"length": one.length, "seconds": one.value} for one in timed]},
        )
    ]


def cache_parts(planned: Planned) -> Iterator[Part]:
    """Bytes of the caches of one sequence. They are computed, not sampled: the interval is the value."""
    spec = planned.suite.cache
    dtype = str(planned.model.dtype).removeprefix("torch.")
    for length, _ in () if spec is None else planned.lengths(spec.lengths, "cache", "lengths"):
        count = float(planned.model.spec.cache_bytes(length, dtype))
        exact = row(
            "cache_bytes",
            length,
            planned.trained,
            Interval(count, count, count, 1),
            of="exact",
            unit="bytes",
            better="lower",
            setting={"dtype": dtype},
        )
        yield part("cache_bytes", length, 0, lambda advance, exact=exact: [exact])  # type: ignore[misc]


def median_of(values: Sequence[float]) -> Interval:
    """The median of n values, between the k-th smallest and the k-th largest: the largest k that 95 % allow."""
    ordered, n = sorted(values), len(values)
    below, k = 0.0, 0  # below: the probability that fewer than k values lie below the true median
    while k < n // 2 and below + math.comb(n, k) / 2**n <= (1 - LEVEL) / 2:
        below += math.comb(n, k) / 2**n
        k += 1
    if k == 0:
        return Interval(median(ordered), -math.inf, math.inf, n)
    return Interval(median(ordered), ordered[k - 1], ordered[n - k], n)
