"""Which variable of a search mattered: the share of each variable in reaching a good value of an objective.

A share is that of the divergence which ped_anova.py finds, and all shares add up to 1. A placement counts place by
place: its divergence is the sum of those of its places. A variable that not every trial has is left out.

How sure that is, from the trials alone:

    interval      the share and 1.96 standard deviations, over 200 samples drawn from the trials with replacement
    chance        the values differ no more between its values than by chance (chance.py, at 95 %)
    order         two shares can be told apart where their difference is more than 1.96 of its standard deviations

Of a search that stops trials early, those that are trained to the end are the best of all, and say little of what is
bad. So the values are those at the last rung that at least half of the trials have reached.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from miniwin.display.formats import count_text, plural
from miniwin.search.report.chance import by_chance
from miniwin.search.report.measures import known
from miniwin.search.report.ped_anova import Array, Column, best, divergences, numeric
from miniwin.specs.objectives import Objective
from miniwin.specs.placements import SequenceVariable, SubsetVariable
from miniwin.specs.search import SearchSpec
from miniwin.specs.variables import ChoiceVariable, IntVariable

if TYPE_CHECKING:
    from miniwin.search.study_data import TrialRecord

FEWEST = 8  # trials below which there is nothing to say
FEW = 30  # trials below which the shares are a hint
BEST = 5  # trials that count as good, or a tenth of all trials if that is more
SAMPLES = 200
SURE = 1.96  # standard deviations


@dataclass(frozen=True)
class Share:
    """low, high: the 95 % interval. chance: whether as much may come of chance."""

    value: float
    low: float
    high: float
    chance: bool


@dataclass(frozen=True)
class Importance:
    """The shares of the variables in one objective, largest first; or a note why there are none.

    about: what they are from. of: how many trials that is. ties: neighbours in this order whose order is not known, of
    those that stand out.
    """

    objective: Objective
    shares: dict[str, Share] = field(default_factory=dict)
    note: str | None = None
    about: str = ""
    of: int = 0
    ties: tuple[tuple[str, str], ...] = ()


def importances(spec: SearchSpec, trials: Sequence[TrialRecord]) -> list[Importance]:
    """One Importance for each objective of the search."""
    return [_importance(spec, objective, trials) for objective in spec.parsed_objectives]


def _importance(spec: SearchSpec, objective: Objective, trials: Sequence[TrialRecord]) -> Importance:
    usable, where = _measured(objective, trials)
    count = len(usable)
    if count < FEWEST:
        return Importance(
            objective, note=f"Too few: {plural(count, 'trial')} completed, at least {FEWEST} are needed.", of=count
        )
    values = np.array([value for _, value in usable])
    if values.min() == values.max():
        return Importance(objective, note="Every completed trial has the same value.", of=count)
    judged = [name for name in spec.variables if all(name in trial.params for trial, _ in usable)]
    columns = {name: _columns(spec.variables[name], [trial.params[name] for trial, _ in usable]) for name in judged}
    shares, ties = _shares(columns, values if objective.direction == "minimize" else -values)
    few = [f"From {count} trials: a hint, not a measurement." if count < FEW else f"From {count:,} trials."]
    absent = [name for name in spec.variables if name not in judged]
    left_out = [f"Left out, since not every trial has a value: {', '.join(absent)}."] if absent else []
    about = " ".join([*few, *where, *left_out])
    if all(share.chance for share in shares.values()):
        note = f"No variable can be told from chance with {count:,} trials."
        return Importance(objective, note=" ".join([note, *where, *left_out]), of=count)
    return Importance(objective, shares, about=about, of=count, ties=ties)


def _measured(objective: Objective, trials: Sequence[TrialRecord]) -> tuple[list[tuple[TrialRecord, float]], list[str]]:
    """The trials with their values, and a sentence where these are not those of the end."""
    name = objective.name
    ended = [(t, known(t.values.get(name))) for t in trials if t.state == "complete"]
    ended = [(trial, value) for trial, value in ended if math.isfinite(value)]
    at_rungs: dict[int, list[tuple[TrialRecord, float]]] = {}
    begun = 0
    for trial in trials:
        begun += trial.trained or bool(trial.rungs)
        for rung in trial.rungs:
            if math.isfinite(value := known(rung["values"].get(name))):
                at_rungs.setdefault(int(rung["tokens"]), []).append((trial, value))
    enough = max(FEWEST, math.ceil(begun / 2))
    if len(ended) >= enough or not objective.measured:
        return ended, []
    for tokens in sorted(at_rungs, reverse=True):
        if len(at_rungs[tokens]) >= enough:
            count = plural(len(at_rungs[tokens]), "trial")
            return at_rungs[tokens], [f"By the values at {count_text(tokens)} tokens, which {count} reached."]
    return ended, []


def _shares(columns: Mapping[str, list[Column]], costs: Array) -> tuple[dict[str, Share], tuple[tuple[str, str], ...]]:
    """Largest first, and the neighbours that cannot be told apart."""
    chance, count = np.random.default_rng(0), len(costs)
    share = min(max(BEST / count, 0.1), 0.5)
    every = np.ones((1, count))
    good = best(costs, share, every)
    drawn = np.stack([np.bincount(row, minlength=count) for row in chance.integers(count, size=(SAMPLES, count))])
    samples = drawn.astype(np.float64)
    found, again = (
        np.stack([divergences(of, *weights).sum(axis=0) for of in columns.values()])
        for weights in ((every, good), (samples, best(costs, share, samples)))
    )
    here = found[:, 0] / max(found.sum(), 1e-300)
    each = again / np.maximum(again.sum(axis=0), 1e-300)
    spread = SURE * each.std(axis=1, ddof=1)
    luck = by_chance(list(columns.values()), costs)
    names = list(columns)
    order = sorted(range(len(names)), key=lambda one: -here[one])
    shares = {
        names[one]: Share(
            float(here[one]),
            float(max(here[one] - spread[one], 0.0)),
            float(min(here[one] + spread[one], 1.0)),
            luck[one],
        )
        for one in order
    }
    ties = [
        (names[a], names[b])
        for a, b in pairwise(one for one in order if not luck[one])
        if here[a] - here[b] <= SURE * (each[a] - each[b]).std(ddof=1)
    ]
    return shares, tuple(ties)


def _columns(variable: Any, values: Sequence[Any]) -> list[Column]:
    """The columns of a variable, one for each place of a placement."""
    if isinstance(variable, SubsetVariable):
        places = 1 + max((place for value in values for place in value), default=-1)
        return [_named([place in value for value in values]) for place in range(places)]
    if isinstance(variable, SequenceVariable):
        places = min(map(len, values))  # the places that all layouts have
        letters = len(variable.sequence.letters)
        return [_named([value[place] for value in values], letters) for place in range(places)]
    if isinstance(variable, ChoiceVariable):
        # Choices as text, so that any JSON value can be one.
        return [_named([json.dumps(value, sort_keys=True) for value in values], len(variable.choice))]
    if isinstance(variable, IntVariable):
        return [numeric(values, variable.int[0], variable.int[1], variable.step, variable.log)]
    return [numeric(values, variable.float[0], variable.float[1], variable.step, variable.log)]


def _named(values: Sequence[Any], size: int = 2) -> Column:
    """A column of values without an order. size: how many there are; more, if more were chosen."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return Column(np.array([places[value] for value in values]), max(size, len(places)), False)
