"""What the variables of a search say of each other: conditions, and the numbers that placements take from others.

factor:  {choice: [1, 2], when: {encoding: p-rope}}     a condition on the variable `encoding`
global:  {subset: {of: num_layers, size: count}}        a number from the variable `count`
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.conditional import conditions, same
from miniwin.specs.placements import MOST_PLACES, NUM_LAYERS, Placement, SequenceVariable, SubsetVariable
from miniwin.specs.variables import ChoiceVariable, IntVariable
from miniwin.specs.yaml_scalars import shown

Problems = list[tuple[str, str]]  # a dotted path below `variables`, and what is wrong there
Variables = Mapping[str, Any]
Where = dict[str, list[Any]]  # for some variables, the values that they have


def numbers(variable: Any) -> dict[str, str]:
    """The variables that a placement takes a number from, by the field that names them: `subset.size`."""
    if isinstance(variable, SubsetVariable):
        return {f"subset.{field}": name for field, name in variable.subset.names.items()}
    if isinstance(variable, SequenceVariable):
        return {f"sequence.{field}": name for field, name in variable.sequence.names.items()}
    return {}


def in_order(variables: Variables) -> list[str]:
    """The names, each after those that it depends on; otherwise in the order of the spec."""
    order: list[str] = []

    def add(name: str) -> None:
        if name not in order:
            for other in _needed(variables[name]):
                add(other)
            order.append(name)

    for name in variables:
        add(name)
    return order


def link_problems(variables: Variables) -> Problems:
    """What is wrong with conditions and numbers, as far as it shows without the base model."""
    problems = [
        problem
        for name, variable in variables.items()
        for problem in [*_conditions(name, variable, variables), *_numbers(name, variable, variables)]
    ]
    problems = problems or _circle(variables) or _never(variables)
    return problems or placement_problems(variables, None)


def where(name: str, variables: Variables) -> Where:
    """The conditions under which a variable has a value, with those of the variables that it depends on."""
    found: Where = {}
    for other, values in conditions(variables[name]).items():
        for key, allowed in [(other, values), *where(other, variables).items()]:
            before = found.get(key, allowed)
            found[key] = [value for value in before if any(same(value, one) for one in allowed)]
    return found


def implies(narrow: Where, wide: Where) -> bool:
    """Whether every assignment that fits `narrow` fits `wide`."""
    return all(
        name in narrow and all(any(same(value, one) for one in values) for value in narrow[name])
        for name, values in wide.items()
    )


def bounds(number: int | str | list[int], variables: Variables, num_layers: int | None) -> tuple[int, int] | None:
    """The lowest and the highest value of a number of a placement. None: the base model says it, and is not known."""
    if isinstance(number, list):
        return number[0], number[1]
    if number == NUM_LAYERS:
        return None if num_layers is None else (num_layers, num_layers)
    if isinstance(number, str):
        values = variables[number].values
        return values[0], values[-1]
    return number, number


def placement_problems(variables: Variables, num_layers: int | None) -> Problems:
    """Placements that cannot be: larger than their set, or rules that no sequence keeps."""
    problems = []
    for name, variable in variables.items():
        if isinstance(variable, Placement) and (found := _unplaceable(variable, variables, num_layers)):
            kind = "subset" if isinstance(variable, SubsetVariable) else "sequence"
            problems.append((f"{name}.{kind}.{found[0]}".rstrip("."), found[1]))
    return problems


def _unplaceable(variable: Placement, variables: Variables, num_layers: int | None) -> tuple[str, str] | None:
    if isinstance(variable, SubsetVariable):
        of = bounds(variable.subset.of, variables, num_layers)
        size = bounds(variable.subset.size, variables, num_layers)
        if of is None or size is None:
            return None
        return variable.subset.problem(of, size)
    length = bounds(variable.sequence.length, variables, num_layers)
    if length is None:
        return None
    if length[0] < 1:
        return "length", f"it may be {length[0]}; expected at least 1"
    named = variables.get(str(variable.sequence.length))
    lengths = range(length[0], length[1] + 1) if named is None else named.values
    few = lengths if length[1] <= MOST_PLACES else lengths[-1:]
    return next(filter(None, (variable.sequence.problem(n, length[1]) for n in few)), None)


def _needed(variable: Any) -> list[str]:
    return [*variable.when, *numbers(variable).values()]


def _conditions(name: str, variable: Any, variables: Variables) -> Iterator[tuple[str, str]]:
    for other, values in conditions(variable).items():
        path = f"{name}.when.{other}"
        if other == name:
            yield path, "a variable cannot be its own condition"
        elif other not in variables:
            yield path, _unknown(other, list(variables))
        elif isinstance(variables[other], Placement) or not math.isfinite(variables[other].size):
            yield (
                path,
                f"{other} has no single values to ask for; a condition names an int, a choice, or a float with a step",
            )
        elif not values:
            yield path, f"the list is empty; expected a value of {other}, or several"
        else:
            for index, value in enumerate(values):
                if not variables[other].has(value):
                    at = f"{path}.{index}" if isinstance(variable.when[other], list) else path
                    yield at, f"{other} never has the value {shown(value)}; {_said_of(variables[other])}"


def _numbers(name: str, variable: Any, variables: Variables) -> Iterator[tuple[str, str]]:
    for field, other in numbers(variable).items():
        path = f"{name}.{field}"
        if other not in variables:
            yield path, _unknown(other, [*(n for n, v in variables.items() if isinstance(v, IntVariable)), NUM_LAYERS])
        elif not isinstance(variables[other], IntVariable):
            yield path, f"{other} is no int variable; expected a number, or the name of one"


def _circle(variables: Variables) -> Problems:
    """The first variable that waits for itself."""

    def path_back(name: str, trail: tuple[str, ...]) -> tuple[str, ...] | None:
        for other in _needed(variables[name]):
            if other == trail[0]:
                return (*trail, other)
            if other not in trail and (found := path_back(other, (*trail, other))):
                return found
        return None

    for name, variable in variables.items():
        if found := path_back(name, (name,)):
            fields = {**{f"when.{other}": other for other in variable.when}, **numbers(variable)}
            field = next(field for field, other in fields.items() if other == found[1])
            return [(f"{name}.{field}", f"these variables wait for each other: {' -> '.join(found)}")]
    return []


def _never(variables: Variables) -> Problems:
    """Conditions that no assignment fits, and numbers that are missing where they are needed."""
    problems = []
    for name, variable in variables.items():
        own = where(name, variables)
        if impossible := [other for other, values in own.items() if not values]:
            problems.append(
                (f"{name}.when", f"these conditions never hold together, since {impossible[0]} has one value at a time")
            )
            continue
        for field, other in numbers(variable).items():
            if not implies(own, where(other, variables)):
                problems.append(
                    (
                        f"{name}.{field}",
                        f"{other} has a value only under conditions, and {name} needs it always: give {name} the same "
                        "`when`",
                    )
                )
    return problems


def _unknown(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    return f"there is no variable {shown(name)}; " + (
        f"did you mean {near}?" if near else f"there are {some(known, 12)}"
    )


def _said_of(variable: Any) -> str:
    if isinstance(variable, ChoiceVariable):
        return f"it is one of {some(map(shown, variable.choice), 12)}"
    low, high = variable.int if isinstance(variable, IntVariable) else variable.float
    return f"it goes from {low:g} to {high:g}" + (
        f" in steps of {variable.step:g}" if variable.step not in (1, None) else ""
    )
