"""Rungs and brackets of successive halving, as numbers.

A trial that is first judged at rung b belongs to bracket b, and is compared with the trials of its bracket only. One
bracket is plain successive halving. More of them hedge against judging too early, as in Hyperband (arXiv:1603.06560):

    n_b = ceil((R + 1) / (R - b + 1) * eta^(R - b))        of R rungs and a reduction eta: b's share of the trials

Hyperband fills one bracket after the other. Here a trial's number decides, so that all brackets grow together, on any
number of workers, in these proportions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from miniwin.specs import SearchSpec
from miniwin.specs.pruning import HalvingPruner, HyperbandPruner


@dataclass(frozen=True)
class Rule:
    """Of each rung, one trial in `reduction` goes on. rungs: how many there are before the whole budget."""

    reduction: int
    rungs: int
    brackets: int = 1


def rule_of(spec: SearchSpec, tokens: int) -> Rule | None:
    """The rule of a search whose trials have so many tokens; None if its pruner is another one."""
    rungs = len(spec.rung_tokens(tokens))
    if isinstance(spec.pruner, HalvingPruner):
        return Rule(spec.pruner.reduction, rungs, spec.pruner.brackets)
    if isinstance(spec.pruner, HyperbandPruner):
        return Rule(spec.pruner.reduction, rungs, rungs + 1)
    return None


def bracket_of(number: int, rule: Rule) -> int:
    """The bracket of the trial with this number."""
    if rule.brackets == 1:
        return 0
    cycle = _cycle(rule)
    return cycle[number % len(cycle)]


def shares(rule: Rule) -> list[int]:
    """How the trials are dealt out: so many to bracket 0, 1, ..., and again from the start."""
    halvings = (rule.rungs - bracket for bracket in range(rule.brackets))
    return [math.ceil((rule.rungs + 1) / (times + 1) * rule.reduction**times) for times in halvings]


@lru_cache(maxsize=64)
def _cycle(rule: Rule) -> tuple[int, ...]:
    """Brackets in an order in which each has about its share at any moment: the next trial goes to the bracket that
    lags most behind."""
    wanted = shares(rule)
    dealt: list[int] = []
    given = [0] * len(wanted)
    for _ in range(sum(wanted)):
        bracket = max(range(len(wanted)), key=lambda one: (wanted[one] / (2 * given[one] + 1), -one))
        given[bracket] += 1
        dealt.append(bracket)
    return tuple(dealt)
