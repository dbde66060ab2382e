"""A number of a search: drawn at random, and moved by a small step."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from miniwin.specs.variables import FloatVariable, IntVariable

SPREAD = 0.1  # of a small step, as a share of the range


def drawn(variable: IntVariable | FloatVariable, random: Random) -> int | float:
    """A value, each with the same chance; of a logarithmic variable by the logarithm."""
    if isinstance(variable, IntVariable):
        low, high = variable.int
        if not variable.log:
            return random.choice(variable.values)
        return _whole(math.exp(random.uniform(math.log(low - 0.5), math.log(high + 0.5))), low, high)
    low_, high_ = variable.float
    if variable.step is not None:
        return float(variable.at(random.randint(0, variable.steps)))
    if variable.log:
        return _within(math.exp(random.uniform(math.log(low_), math.log(high_))), low_, high_)
    return random.uniform(low_, high_)


def moved(variable: IntVariable | FloatVariable, value: Any, random: Random) -> int | float:
    """A value near to another one; another one itself only where there is no second value."""
    if isinstance(variable, IntVariable):
        low, high = variable.int
        if variable.log:
            near = _whole(value * (high / low) ** (random.choice([-1, 1]) * abs(random.gauss(0, SPREAD))), low, high)
            return near if near != value else _stepped(int(value) - low, high - low, random) + low
        return low + variable.step * _stepped((int(value) - low) // variable.step, variable.size - 1, random)
    low_, high_ = variable.float
    if variable.step is not None:
        return float(variable.at(_stepped(round((value - low_) / variable.step), variable.steps, random)))
    if low_ == high_:
        return value
    step = random.gauss(0, SPREAD)
    there, back = (
        _within(value * (high_ / low_) ** share if variable.log else value + share * (high_ - low_), low_, high_)
        for share in (step, -step)
    )
    return there if there != value else back  # back, where the value is at the end of the range


def _stepped(index: int, last: int, random: Random) -> int:
    """Another index from 0 to `last`, a step off, or at most a tenth of the way; the same where there is no other."""
    if not last:
        return index
    reach = max(1, round(last * SPREAD))  # there is room for so much on one side at least
    near = (index - random.randint(1, reach), index + random.randint(1, reach))
    return random.choice([other for other in near if 0 <= other <= last])


def _whole(value: float, low: int, high: int) -> int:
    return min(max(round(value), low), high)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
