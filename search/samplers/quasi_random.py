"""Quasi-random sequences: each trial is the next point of a Sobol or Halton sequence, scrambled by the study's seed.

Optuna's sampler draws what depends on another variable by chance, and counts its points in the storage. Here each
parameter that a trial may be asked for has a coordinate of its own, and the trial's number says which point it is.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from miniwin.search.samplers.given import Given
from miniwin.search.samplers.needs import need
from miniwin.search.samplers.numbers import Axis
from miniwin.search.samplers.past import Past, Variables
from miniwin.specs.sampling import QuasiRandomSampler


def check(spec: QuasiRandomSampler, space: Variables) -> Any:
    """The module of scipy that has the sequences."""
    return need("quasi-random", "scipy.stats.qmc", "samplers")


def propose(spec: QuasiRandomSampler, past: Past, seed: int) -> dict[str, Any]:
    axes = {name: Axis(distribution) for name, distribution in past.space.distributions().items()}
    point = _engine(check(spec, past.space), spec, len(axes), past.space.spec.seed, past.number).random(1)[0]
    chosen = {name: axis.value(place) for (name, axis), place in zip(axes.items(), point, strict=True)}
    return past.ask(Given(chosen, seed))  # only what this trial is asked for


def _engine(qmc: Any, spec: QuasiRandomSampler, dimensions: int, seed: int, number: int) -> Any:
    kind = {"sobol": qmc.Sobol, "halton": qmc.Halton}[spec.sequence]
    engine = kind(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if number:
        with warnings.catch_warnings(action="ignore"):  # a Sobol sequence is balanced at powers of two only
            engine.fast_forward(number)
    return engine
