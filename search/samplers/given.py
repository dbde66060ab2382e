"""Trials of which some parameters are given, and the others drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, RandomSampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class Given(BaseSampler):
    """Gives the parameters that were chosen before. Others that a trial asks for are drawn at random."""

    def __init__(self, params: Mapping[str, Any], seed: int) -> None:
        self._params, self._others = params, RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name in self._params and within(param_distribution, self._params[param_name]):
            return self._params[param_name]
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def within(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution can give this value."""
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return value in choices
    return isinstance(value, (int, float)) and distribution.low <= value <= distribution.high  # type: ignore[attr-defined]
