"""Optuna's samplers and pruners, as a search spec asks for them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from miniwin.specs import SearchSpec
from miniwin.specs.search import AshaPruner, MedianPruner, TPESampler

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def make_sampler(spec: SearchSpec, trials: int, random: bool = False) -> BaseSampler:
    """The sampler for the next trial of a study that has `trials` of them.

    The seed follows from the number of trials, not from the worker: whoever asks, and however often workers were
    restarted, the same history leads to the same proposal, and no two trials draw the same random numbers.
    """
    from optuna.samplers import RandomSampler
    from optuna.samplers import TPESampler as OptunaTPE

    seed = int.from_bytes(hashlib.sha256(f"{spec.seed}/{trials}".encode()).digest()[:4])
    if random or not isinstance(spec.sampler, TPESampler):
        return RandomSampler(seed=seed)
    return OptunaTPE(seed=seed, n_startup_trials=spec.sampler.startup, multivariate=True, constant_liar=True)


def make_pruner(spec: SearchSpec) -> BasePruner:
    """Optuna's pruner. What it is told as the step of a rung comes from `pruner_step`."""
    import optuna

    if isinstance(spec.pruner, MedianPruner):
        return optuna.pruners.MedianPruner(n_startup_trials=spec.pruner.startup, n_warmup_steps=0)
    if isinstance(spec.pruner, AshaPruner):
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=spec.pruner.reduction)
    return optuna.pruners.NopPruner()


def pruner_step(spec: SearchSpec, rung: int) -> int:
    """The step at which rung 0, 1, ... is reported. Successive halving decides at 1, r, r^2, ..., so that each of our
    rungs is one of its decisions, whatever fraction of the budget it stands for."""
    return spec.pruner.reduction**rung if isinstance(spec.pruner, AshaPruner) else rung + 1
