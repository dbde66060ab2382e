"""The variables of a search over one base model: their values, and how Optuna knows them.

    values   {"encoding": "rope", "layout": "SSGSSSSG"}                what a spec speaks of, and trial.json holds
    params   {"encoding": "rope", "layout.0": "S", "layout.1": "S"}    Optuna's parameters (coding.py)

A variable whose conditions do not hold is in neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from miniwin.search.coding import Coding, make_coding
from miniwin.search.placement import Placed
from miniwin.specs import UserError
from miniwin.specs.conditional import conditions, same
from miniwin.specs.expressions import WITHOUT_VALUE, Members
from miniwin.specs.placements import Placement, SubsetVariable
from miniwin.specs.variable_links import in_order, numbers
from miniwin.specs.variables import ChoiceVariable, FloatVariable, IntVariable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Values = dict[str, Any]
OTHER = "\0other"  # any value that no condition asks for


class Variables:
    """The variables of a search spec, for a base model of `num_layers` layers.

    placements: their coding, `letters` or `ordinal`. first_choices: how many choices there were when the study began,
    for each choice variable that has more by now.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        num_layers: int,
        placements: str = "letters",
        first_choices: Mapping[str, int] | None = None,
    ) -> None:
        self.specs = dict(variables)
        self.order = in_order(variables)
        self.placed = {
            name: Placed(variable, variables, num_layers)
            for name, variable in variables.items()
            if isinstance(variable, Placement)
        }
        self._have_grown = bool(first_choices)
        self._conditions = {name: conditions(variable) for name, variable in variables.items()}
        self._codings: dict[str, Coding] = {
            name: make_coding(name, variable, self.placed.get(name), placements, (first_choices or {}).get(name))
            for name, variable in variables.items()
        }

    def is_active(self, name: str, given: Mapping[str, Any]) -> bool:
        """Whether the conditions of a variable hold. given: the values of the variables before it."""
        return all(
            other in given and any(same(given[other], value) for value in allowed)
            for other, allowed in self._conditions[name].items()
        )

    def in_spec_order(self, values: Mapping[str, Any]) -> Values:
        """The values in the order in which the spec has the variables."""
        return {name: values[name] for name in self.specs if name in values}

    def named(self, values: Mapping[str, Any]) -> Values:
        """What an expression takes each name for: a subset knows what it is of, and each variable has something."""
        named: Values = {name: values.get(name, WITHOUT_VALUE) for name in self.specs}
        for name, value in values.items():
            if isinstance(self.specs.get(name), SubsetVariable):
                named[name] = Members(tuple(value), self.placed[name].length(values))
        return named

    # -- Optuna's parameters

    def suggest(self, trial: BaseTrial) -> Values:
        """The values in an Optuna trial, each asked of Optuna where the trial has none yet."""
        held = trial.params  # of a trial that goes on; its ranges may have been narrower
        known = {**_fixed(trial), **held} if self._have_grown else {}
        values: Values = {}
        for name in self.order:
            if self.is_active(name, values):
                coding = self._codings[name]
                asked = coding.distributions(values, known)
                params = {
                    param: held[param] if param in held else _ask(trial, param, distribution)
                    for param, distribution in asked.items()
                }
                values[name] = coding.decode(params, values)
        return self.in_spec_order(values)

    def decode(self, params: Mapping[str, Any]) -> Values:
        """The values that Optuna's parameters say. A variable without parameters has no value."""
        values: Values = {}
        for name in self.order:
            coding = self._codings[name]
            if coding.is_in(params) and self.is_active(name, values) and self._has_numbers(name, values):
                values[name] = coding.decode(params, values)
        return self.in_spec_order(values)

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of these values: `decode(encode(values)) == values`.

        Raises:
            UserError: a value is none of its variable's values, or is missing, or there is one too many.
        """
        params: dict[str, Any] = {}
        for name in self.order:
            active = self.is_active(name, values)
            if active is not (name in values):
                what = "has no value" if active else "has a value, though its conditions do not hold"
                raise UserError(f"{name}: it {what}")
            if active:
                params.update(self._codings[name].encode(values[name], values))
        if unknown := [name for name in values if name not in self.specs]:
            raise UserError(f"{unknown[0]}: there is no such variable")
        return params

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter there may be, at its widest. Not every trial has them all, and some may have narrower
        ones."""
        return {
            param: distribution
            for name in self.order
            for param, distribution in self._codings[name].distributions(None, {}).items()
        }

    # -- all values

    @property
    def size(self) -> float:
        """How many assignments there are; infinite where a variable is real without a step."""
        if math.inf in (self.specs[name].size for name in self.order if name not in self.placed):
            return math.inf
        last = {other: name for name in self.order for other in [*self._conditions[name], *self._numbers(name)]}
        # Assignments of the variables that later ones ask for, each with how many assignments of all others there are.
        counted: list[tuple[Values, float]] = [({}, 1)]
        for index, name in enumerate(self.order):
            found: dict[str, tuple[Values, float]] = {}
            done = {other for other, by in last.items() if self.order.index(by) <= index}
            for values, count in counted:
                for value, ways in self._sorts(name, values, name in last):
                    new = {**values, **value}
                    kept = {other: new[other] for other in new if other not in done}
                    key = json.dumps(kept, sort_keys=True)
                    found[key] = kept, found.get(key, (kept, 0))[1] + count * ways
            counted = list(found.values())
        return sum(count for _, count in counted)

    def enumerate(self, most: int = 100_000) -> Iterator[Values] | None:
        """All assignments, or None if there are more than `most`."""
        return self._all(0, {}) if self.size <= most else None

    def draw(self, random: Random, given: Mapping[str, Any] | None = None) -> Values:
        """An assignment at random: each variable for itself, and each of its values with the same chance.

        A sampler of Optuna draws the parameters alike instead, and with the coding `letters` the placements that mend
        more draws come more often. given: values that stand.
        """
        values: Values = {}
        for name in self.order:
            if self.is_active(name, values):
                values[name] = given[name] if given and name in given else self.draw_one(name, values, random)
        return self.in_spec_order(values)

    def draw_one(self, name: str, given: Mapping[str, Any], random: Random) -> Any:
        """A value of one variable; of a real number by its scale, of a logarithmic one by its logarithm."""
        from miniwin.search.numbers import drawn

        if name in self.placed:
            return self.placed[name].draw(given, random)
        variable = self.specs[name]
        return random.choice(variable.choice) if isinstance(variable, ChoiceVariable) else drawn(variable, random)

    def count(self, name: str, given: Mapping[str, Any]) -> float:
        """How many values a variable has."""
        size: float = self.placed[name].count(given) if name in self.placed else self.specs[name].size
        return size

    def _all(self, index: int, given: Values) -> Iterator[Values]:
        if index == len(self.order):
            yield self.in_spec_order(given)
            return
        name = self.order[index]
        if not self.is_active(name, given):
            yield from self._all(index + 1, given)
            return
        for value in self._axis(name, given):
            yield from self._all(index + 1, {**given, name: value})

    def _axis(self, name: str, given: Values) -> Iterator[Any]:
        variable = self.specs[name]
        if name in self.placed:
            placed = self.placed[name]
            return map(placed.value, placed.sequences(given).all(placed.length(given)))
        if isinstance(variable, FloatVariable):
            return map(variable.at, range(variable.steps + 1))
        return iter(variable.values if isinstance(variable, IntVariable) else variable.choice)

    def _sorts(self, name: str, given: Values, asked_for: bool) -> Iterator[tuple[Values, float]]:
        """The values of a variable by what later variables ask of it, each with how many values there are alike."""
        if not self.is_active(name, given):
            yield {}, 1
            return
        count = self.count(name, given)
        if not asked_for:
            yield {}, count
            return
        if any(name in self._numbers(other) for other in self.order):
            yield from (({name: value}, 1) for value in self._axis(name, given))
            return
        named: list[Any] = []
        for allowed in (of[name] for of in self._conditions.values() if name in of):
            named += [value for value in allowed if not any(same(value, one) for one in named)]
        yield from (({name: value}, 1) for value in named)
        if count > len(named):
            yield {name: OTHER}, count - len(named)

    def _numbers(self, name: str) -> list[str]:
        return list(numbers(self.specs[name]).values())

    def _has_numbers(self, name: str, given: Mapping[str, Any]) -> bool:
        return all(other in given for other in self._numbers(name))


def _fixed(trial: BaseTrial) -> dict[str, Any]:
    """The parameters that a trial from the queue was given."""
    from optuna import Trial

    attrs: dict[str, Any] = trial.storage.get_trial_system_attrs(trial._trial_id) if isinstance(trial, Trial) else {}
    return dict(attrs.get("fixed_params", {}))


def _ask(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)
