"""CMA-ES by the package cmaes (arXiv:1604.00772), for numbers and one objective.

Optuna keeps the state of CMA-ES in its storage. Here each proposal begins at the middle of the space and is told the
generations of the history, one after the other, which takes milliseconds. A generation is the next `population`
complete trials, oldest first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from miniwin.search.samplers.needs import need
from miniwin.search.samplers.numbers import Axis
from miniwin.search.samplers.past import Past, Variables
from miniwin.specs.sampling import CMASampler

SIGMA = 1 / 6  # of the range of each variable, at the start: Optuna's


def check(spec: CMASampler, space: Variables) -> Any:
    """The package cmaes."""
    return need("cmaes", "cmaes", "samplers")


def propose(spec: CMASampler, past: Past, seed: int) -> dict[str, Any]:
    cmaes = check(spec, past.space)
    axes = {name: Axis(distribution) for name, distribution in past.space.distributions().items()}
    sign = -1.0 if past.directions[0] == "maximize" else 1.0
    points = [
        (np.array([axis.place(trial.params[name]) for name, axis in axes.items()]), sign * trial.values[0])
        for trial in past.complete
        if math.isfinite(trial.values[0])
    ]
    state = cmaes.CMA(
        mean=np.full(len(axes), 0.5),
        sigma=SIGMA,
        bounds=np.array([[0.0, 1.0]] * len(axes)),
        n_max_resampling=10 * len(axes),
        seed=seed,  # telling draws nothing, so this is the seed of what is asked at the end
        population_size=spec.population,
    )
    size = state.population_size
    for start in range(0, len(points) - size + 1, size):
        state.tell(points[start : start + size])
    return {name: axis.value(place) for (name, axis), place in zip(axes.items(), state.ask(), strict=True)}
