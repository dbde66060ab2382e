"""What may change when a study goes on: its variables may get wider. No trial of before may lose its values.

{choice: [16, 32]}  ->  {choice: [16, 32, 64]}      new choices stand at the end
{int: [1, 7]}       ->  {int: [1, 9]}               the old values are still there: the same step, the same grid
{float: [0.1, 1]}   ->  {float: [0.01, 1]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from miniwin.specs import SearchSpec
from miniwin.specs.conditional import same
from miniwin.specs.variables import ChoiceVariable, FloatVariable, IntVariable


def grown(before: SearchSpec, now: SearchSpec) -> dict[str, Any]:
    """The variables that are wider now and otherwise as they were, with what they were."""
    return {
        name: old
        for name, old in before.variables.items()
        if name in now.variables and old != now.variables[name] and _holds(now.variables[name], old)
    }


def with_variables(spec: SearchSpec, variables: Mapping[str, Any]) -> SearchSpec:
    """The spec with these variables in place of its own of the same names."""
    return spec.model_copy(update={"variables": {**spec.variables, **variables}})


def first_choices(known: Mapping[str, int] | None, widened: Mapping[str, Any]) -> dict[str, int]:
    """How many choices each choice variable had when the study began, of those that have more by now.

    known: those that had grown before. widened: what the variables that grow now were.
    """
    now = {name: len(old.choice) for name, old in widened.items() if isinstance(old, ChoiceVariable)}
    return {**now, **(known or {})}


def _holds(new: Any, old: Any) -> bool:
    """Whether a variable has all values of another, and differs in nothing else."""
    if isinstance(new, ChoiceVariable) and isinstance(old, ChoiceVariable):
        kept = new.choice[: len(old.choice)]
        return len(kept) == len(old.choice) and all(map(same, kept, old.choice)) and new.when == old.when
    if isinstance(new, IntVariable) and isinstance(old, IntVariable):
        wider = new.int[0] <= old.int[0] and old.int[1] <= new.int[1] and old.int[0] in new.values
        return wider and (new.step, new.log, new.when) == (old.step, old.log, old.when)
    if isinstance(new, FloatVariable) and isinstance(old, FloatVariable):
        wider = new.float[0] <= old.float[0] and old.float[1] <= new.float[1]
        steps = (old.float[0] - new.float[0]) / (old.step or 1.0)
        on_grid = old.step is None or math.isclose(steps, round(steps), abs_tol=1e-9)
        return wider and on_grid and (new.step, new.log, new.when) == (old.step, old.log, old.when)
    return False
