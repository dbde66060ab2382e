"""Which variable of a search mattered: the share of each variable in reaching a good value of an objective.

PED-ANOVA (Watanabe et al., arXiv 2304.10255) takes one variable at a time, and compares the distribution of the best
trials over its values with that of all trials. The further apart the two are (Pearson divergence), the more the choice
mattered. Unlike fANOVA it needs no regression forest, so Optuna computes it without scikit-learn, and few trials are
enough. A handful of trials is only a hint, and `caution` says so.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from miniwin.display.formats import plural
from miniwin.search.report.measures import known
from miniwin.specs.objectives import Objective
from miniwin.specs.search import SearchSpec
from miniwin.specs.variables import ChoiceVariable, IntVariable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from miniwin.search.records import TrialRecord

FEWEST = 8  # completed trials below which there is nothing to say
FEW = 30  # completed trials below which the shares are a hint
BEST = 5  # trials that count as good, or a tenth of all trials if that is more


@dataclass(frozen=True)
class Importance:
    """The shares of the variables in one objective, largest first, which add up to 1; or a note why there are none."""

    objective: Objective
    shares: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    caution: str | None = None


def importances(spec: SearchSpec, trials: Sequence[TrialRecord]) -> list[Importance]:
    """One Importance for each objective of the search, from its completed trials."""
    return [_importance(spec, objective, trials) for objective in spec.parsed_objectives]


def _importance(spec: SearchSpec, objective: Objective, trials: Sequence[TrialRecord]) -> Importance:
    usable = [
        t
        for t in trials
        if t.state == "complete"
        and math.isfinite(known(t.values.get(objective.name)))
        and all(name in t.params for name in spec.variables)
    ]
    if len(usable) < FEWEST:
        count = plural(len(usable), "trial")
        return Importance(objective, note=f"Too few: {count} completed, at least {FEWEST} are needed.")
    values = [t.values[objective.name] for t in usable]
    if min(values) == max(values):
        return Importance(objective, note="Every completed trial has the same value.")
    shares = _shares(spec, objective, usable)
    total = sum(shares.values())
    if not total > 0:
        return Importance(objective, note="No variable stands out: the best trials are spread like the rest.")
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    caution = f"From {len(usable)} trials: a hint, not a measurement." if len(usable) < FEW else None
    return Importance(objective, {name: share / total for name, share in ordered}, caution=caution)


def _shares(spec: SearchSpec, objective: Objective, trials: Sequence[TrialRecord]) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {name: _distribution(variable) for name, variable in spec.variables.items()}
    study = optuna.create_study(direction=objective.direction)
    study.add_trials(
        optuna.trial.create_trial(
            params={name: _stored(spec.variables[name], t.params[name]) for name in distributions},
            distributions=distributions,
            value=t.values[objective.name],
        )
        for t in trials
    )
    good = min(max(BEST / len(trials), 0.1), 0.5)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of small studies; the page says so itself
        return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)


def _distribution(variable: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(variable, IntVariable):
        low, high = variable.int
        return IntDistribution(low, high, step=variable.step, log=variable.log)
    if isinstance(variable, ChoiceVariable):
        return CategoricalDistribution([_stored(variable, choice) for choice in variable.choice])
    low, high = variable.float
    return FloatDistribution(low, high, step=variable.step, log=variable.log)


def _stored(variable: Any, value: Any) -> Any:
    """Choices as text, so that any JSON value can be one."""
    return json.dumps(value, sort_keys=True) if isinstance(variable, ChoiceVariable) else value
