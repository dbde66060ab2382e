"""How often a model is right that knows what the answers are, and not which of them is asked for.

The answers of an example are asked one after the other, and a model reads the right answers before. So it knows which
are left: the last of all is certain. These shares are the `blind` baselines of tasks that look something up.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def one_of_the_rest(total: int, asked: int) -> float:
    """The mean share over `asked` questions, where the `total` answers are all different."""
    return sum(1 / (total - before) for before in range(asked)) / asked


MOST_ALIKE = 512  # answers that may be alike: with many more, the probabilities below are too small for a float


@cache
def commonest_of_the_rest(total: int, asked: int, kinds: int) -> float:
    """The same where each answer is one of `kinds` kinds, independent and equally likely.

    The best guess is the kind that most of the m answers left have. With M the count of that kind, the guess is right
    E[M] / m of the time, and P(M <= k) = m! [x^m] (sum of (x / kinds)^j / j! for j <= k)^kinds.
    """
    import numpy as np  # when it is needed: a spec that names a task does not load it

    # Both powers are kept as probabilities of counts that are Poisson: P(all <= k and sum m) / P(sum m).
    rate = total / kinds
    count = np.arange(total + 1)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(count[1:]))))
    one = np.exp(count * np.log(rate) - rate - log_factorial)
    whole = np.exp(count * np.log(total) - total - log_factorial)  # of the sum
    left = total - np.arange(asked)
    largest = np.zeros(asked)  # E[M] = sum of P(M > k)
    for k in range(total):
        above = 1 - _power(one * (count <= k), kinds)[left] / whole[left]
        largest += above
        if above.max() < 1e-12:
            break
    return float(np.mean(largest / left))


def _power(series: np.ndarray, exponent: int) -> np.ndarray:
    """A power of a polynomial, cut at its own length."""
    import numpy as np

    size = len(series)
    result = np.zeros(size)
    result[0] = 1.0
    while exponent:
        if exponent & 1:
            result = np.convolve(result, series)[:size]
        series = np.convolve(series, series)[:size]
        exponent >>= 1
    return result
