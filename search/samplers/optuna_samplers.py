"""Optuna's samplers, as a search spec asks for them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from miniwin.specs import SearchSpec
from miniwin.specs.sampling import TPESampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make_sampler(spec: SearchSpec, trials: int, random: bool = False) -> BaseSampler:
    """The sampler for the next trial of a study that has `trials` of them.

    The seed depends on the number of trials and not on the worker. So the same history leads to the same proposal,
    however often workers were restarted, and no two trials draw the same random numbers.
    """
    from optuna.samplers import RandomSampler
    from optuna.samplers import TPESampler as OptunaTPE

    seed = int.from_bytes(hashlib.sha256(f"{spec.seed}/{trials}".encode()).digest()[:4])
    if random or not isinstance(spec.sampler, TPESampler):
        return RandomSampler(seed=seed)
    return OptunaTPE(seed=seed, n_startup_trials=spec.sampler.startup, multivariate=True, constant_liar=True)
