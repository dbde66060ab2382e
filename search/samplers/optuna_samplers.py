"""Samplers that are Optuna's: TPE, Gaussian process, NSGA-II, NSGA-III. Where they draw at random, we draw ourselves:
Optuna would draw the letters of a placement, not the placement."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from miniwin.search.samplers.needs import need
from miniwin.search.samplers.past import Past, Variables
from miniwin.specs import sampling

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


def tpe(spec: sampling.TPESampler, past: Past, seed: int) -> dict[str, Any]:
    """Multivariate; where some parameters depend on others, each group that occurs together has its own model."""
    if past.ended < spec.startup:
        return past.draw(seed)
    conditional = len({tuple(trial.distributions) for trial in past.trials if trial.distributions}) > 1
    with _quiet():
        kind = TPESampler if conditional else partial(_TPE, past.common)
        sampler = kind(
            seed=seed, n_startup_trials=spec.startup, multivariate=True, group=conditional, constant_liar=True
        )
    return past.ask(sampler)


def check_gp(spec: sampling.GPSampler, space: Variables) -> None:
    need("gp", "scipy", "samplers")


def gp(spec: sampling.GPSampler, past: Past, seed: int) -> dict[str, Any]:
    from optuna.samplers import GPSampler

    check_gp(spec, past.space)
    if len(past.complete) < spec.startup:
        return past.draw(seed)
    return past.ask(GPSampler(seed=seed, n_startup_trials=spec.startup, warn_independent_sampling=False))


def nsga2(spec: sampling.NSGA2Sampler, past: Past, seed: int) -> dict[str, Any]:
    if len(past.complete) < spec.population:
        return past.draw(seed)
    return past.ask(_NSGA2(population_size=spec.population, seed=seed))


def nsga3(spec: sampling.NSGA3Sampler, past: Past, seed: int) -> dict[str, Any]:
    if len(past.complete) < spec.population:
        return past.draw(seed)
    with _quiet():
        sampler = _NSGA3(population_size=spec.population, seed=seed)
    return past.ask(sampler)


def random(spec: sampling.RandomSampler, past: Past, seed: int) -> dict[str, Any]:
    return past.draw(seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings of what may change in a later version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


class _TPE(TPESampler):
    """All ended trials have the same parameters, which are given."""

    def __init__(self, common: dict[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._common = common

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: one for name, one in self._common.items() if not one.single()}


class _ByOrder(BaseGASampler):
    """Optuna notes the generation of each trial in the storage when it is proposed. Here a generation is the next
    `population_size` complete trials, oldest first, so that the history says it all."""

    @property
    def _size(self) -> int:
        assert self.population_size is not None
        return self.population_size

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return len(_complete(study)) // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return _complete(study)[generation * self._size : (generation + 1) * self._size]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        found: dict[int, list[FrozenTrial]] = self.__dict__.setdefault("_parents", {0: []})
        for number in range(len(found), generation + 1):
            found[number] = self.select_parent(study, number)  # asks for the one before
        return found[generation]


class _NSGA2(_ByOrder, NSGAIISampler):
    pass


class _NSGA3(_ByOrder, NSGAIIISampler):
    pass


def _complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
