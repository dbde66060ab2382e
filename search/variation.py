"""A small change of an assignment, and a mixture of two: what evolution works with.

Whatever is changed, the result is an assignment of the variables: conditions and the rules of placements hold. A
constraint may break, since it judges the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from miniwin.search.numbers import moved
from miniwin.search.variables import Values, Variables
from miniwin.specs.conditional import same
from miniwin.specs.variables import ChoiceVariable


def mutated(variables: Variables, values: Mapping[str, Any], random: Random, far: bool = False) -> Values:
    """The values with a small change of one variable.

    An int moves by a step or a tenth of its range, a float by a tenth of its range or so, a choice becomes another one.
    A placement swaps two places, mostly neighbours unless `far`, or changes one. What hangs on the changed variable
    follows: it is drawn anew where it had no value, and a placement of another size becomes the nearest one of that
    size.
    """
    free = [name for name in variables.order if name in values and variables.count(name, values) > 1]
    if not free:
        return variables.in_spec_order(values)
    name = random.choice(free)
    return completed(variables, {**values, name: _changed(variables, name, values, random, far)}, random)


def crossed(variables: Variables, one: Mapping[str, Any], other: Mapping[str, Any], random: Random) -> Values:
    """A child of two assignments: each variable is as in one of them, drawn for each. A placement is mixed place by
    place, and becomes the nearest one that keeps the rules."""
    child: Values = {}
    for name in variables.order:
        if not variables.is_active(name, child):
            continue
        parents = [parent[name] for parent in (one, other) if name in parent]
        if not parents:
            child[name] = variables.draw_one(name, child, random)
        elif name not in variables.placed:
            child[name] = random.choice(parents)
        else:
            child[name] = variables.placed[name].crossed(parents[0], parents[-1], child, random)
    return variables.in_spec_order(child)


def completed(variables: Variables, values: Mapping[str, Any], random: Random) -> Values:
    """An assignment that keeps these values where it can: a variable that has no value now loses it, one that lacks a
    value is drawn, and a placement of another size becomes the nearest one of that size."""
    whole: Values = {}
    for name in variables.order:
        if not variables.is_active(name, whole):
            continue
        if name not in values:
            whole[name] = variables.draw_one(name, whole, random)
        elif name in variables.placed:
            whole[name] = variables.placed[name].fitted(values[name], whole, random)
        else:
            whole[name] = values[name]
    return variables.in_spec_order(whole)


def _changed(variables: Variables, name: str, values: Mapping[str, Any], random: Random, far: bool) -> Any:
    if name in variables.placed:
        if far:
            return variables.placed[name].swapped(values[name], values, random)
        return variables.placed[name].changed(values[name], values, random)
    variable = variables.specs[name]
    if isinstance(variable, ChoiceVariable):
        return random.choice([choice for choice in variable.choice if not same(choice, values[name])])
    return moved(variable, values[name], random)
