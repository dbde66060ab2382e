"""Which variable of a search mattered: the share of each variable in reaching a good value of an objective.

PED-ANOVA (Watanabe et al., arXiv 2304.10255) takes one variable at a time, and compares the distribution of the best
trials over its values with that of all trials. The further apart the two are (Pearson divergence), the more the choice
mattered. Unlike fANOVA it needs no regression forest, so Optuna computes it without scikit-learn, and few trials are
enough. A handful of trials is only a hint, and `caution` says so. A placement counts place by place: its share is the
sum of the shares of its places. A variable that not every trial has is left out.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from miniwin.display.formats import plural
from miniwin.search.report.measures import known
from miniwin.specs.objectives import Objective
from miniwin.specs.placements import SequenceVariable, SubsetVariable
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
    usable = [t for t in trials if t.state == "complete" and math.isfinite(known(t.values.get(objective.name)))]
    if len(usable) < FEWEST:
        count = plural(len(usable), "trial")
        return Importance(objective, note=f"Too few: {count} completed, at least {FEWEST} are needed.")
    values = [t.values[objective.name] for t in usable]
    if min(values) == max(values):
        return Importance(objective, note="Every completed trial has the same value.")
    judged = [name for name in spec.variables if all(name in t.params for t in usable)]
    shares = _shares({name: spec.variables[name] for name in judged}, objective, usable)
    total = sum(shares.values())
    if not total > 0:
        return Importance(objective, note="No variable stands out: the best trials are spread like the rest.")
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    few = [f"From {len(usable)} trials: a hint, not a measurement."] if len(usable) < FEW else []
    absent = [name for name in spec.variables if name not in judged]
    left_out = [f"Left out, since not every trial has a value: {', '.join(absent)}."] if absent else []
    caution = " ".join([*few, *left_out]) or None
    return Importance(objective, {name: share / total for name, share in ordered}, caution=caution)


def _shares(variables: Mapping[str, Any], objective: Objective, trials: Sequence[TrialRecord]) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    codings = {name: _coded(variable, [t.params[name] for t in trials]) for name, variable in variables.items()}
    study = optuna.create_study(direction=objective.direction)
    study.add_trials(
        optuna.trial.create_trial(
            params={f"{name}.{n}": value for name, (_, values) in codings.items() for n, value in enumerate(values[i])},
            distributions={
                f"{name}.{n}": distribution for name, (of, _) in codings.items() for n, distribution in enumerate(of)
            },
            value=t.values[objective.name],
        )
        for i, t in enumerate(trials)
    )
    good = min(max(BEST / len(trials), 0.1), 0.5)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of small studies; the page says so itself
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return {name: sum(found.get(f"{name}.{n}", 0.0) for n in range(len(of))) for name, (of, _) in codings.items()}


def _coded(variable: Any, values: Sequence[Any]) -> tuple[list[BaseDistribution], list[list[Any]]]:
    """The distributions of a variable, one for each place of a placement; and for each value what stands there."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(variable, SubsetVariable):
        places = 1 + max((place for value in values for place in value), default=-1)
        inside = [[place in value for place in range(places)] for value in values]
        return [CategoricalDistribution([False, True])] * places, inside
    if isinstance(variable, SequenceVariable):
        places = min(map(len, values))  # the places that all layouts have
        return [CategoricalDistribution(variable.sequence.letters)] * places, [list(value[:places]) for value in values]
    if isinstance(variable, ChoiceVariable):
        # Choices as text, so that any JSON value can be one.
        choices = [json.dumps(choice, sort_keys=True) for choice in variable.choice]
        return [CategoricalDistribution(choices)], [[json.dumps(value, sort_keys=True)] for value in values]
    if isinstance(variable, IntVariable):
        whole = IntDistribution(variable.int[0], variable.int[1], variable.log, variable.step)
        return [whole], [[value] for value in values]
    real = FloatDistribution(variable.float[0], variable.float[1], variable.log, variable.step)
    return [real], [[value] for value in values]
