"""Dealing things out by weight, in a fixed order without chance: lengths to passes, parts of a mixture to rows.

    share_i = w_i / (w_i + w_i+1 + ...)          of what the ones before i leave
    count_i = floor(n_i * share_i + 1/2)         of the first n_i that are left: n_0 = n, n_i+1 = n_i - count_i

The count of each among the first n is a formula, so a run resumes anywhere without a state. The counts stay within a
few of n * w_i / sum(w), whatever n. Weights are read as the decimals that they are written as, and computed exactly: no
processor rounds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache


def counts(number: int, weights: Sequence[float]) -> tuple[int, ...]:
    """How many of the first `number` each weight gets."""
    found = []
    for share in _shares(tuple(weights)):
        found.append(_rounded(number, share))
        number -= found[-1]
    return tuple(found)


def dealt(number: int, weights: Sequence[float]) -> tuple[int, int]:
    """(which weight gets thing `number`, how many it got before)."""
    for place, share in enumerate(_shares(tuple(weights))):
        before = _rounded(number, share)
        if _rounded(number + 1, share) > before:
            return place, before
        number -= before
    raise AssertionError("the last share is all that is left")


@lru_cache(maxsize=64)
def _shares(weights: tuple[float, ...]) -> tuple[Fraction, ...]:
    exact = [Fraction(str(weight)) for weight in weights]
    return tuple(weight / sum(exact[place:]) for place, weight in enumerate(exact))


def _rounded(number: int, share: Fraction) -> int:
    return (2 * number * share.numerator + share.denominator) // (2 * share.denominator)
