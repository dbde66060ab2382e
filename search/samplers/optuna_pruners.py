"""Optuna's pruners, as a search spec asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from miniwin.specs import SearchSpec
from miniwin.specs.pruning import AshaPruner, MedianPruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


def make_pruner(spec: SearchSpec) -> BasePruner:
    """Optuna's pruner. The step that a rung is reported at comes from `pruner_step`."""
    import optuna

    if isinstance(spec.pruner, MedianPruner):
        return optuna.pruners.MedianPruner(n_startup_trials=spec.pruner.startup, n_warmup_steps=0)
    if isinstance(spec.pruner, AshaPruner):
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=spec.pruner.reduction)
    return optuna.pruners.NopPruner()


def pruner_step(spec: SearchSpec, rung: int) -> int:
    """The step at which rung 0, 1, ... is reported to Optuna.

    Successive halving decides at steps 1, r, r^2, ...: so it decides at each rung, whatever fraction of the budget
    the rung stands for.
    """
    return spec.pruner.reduction**rung if isinstance(spec.pruner, AshaPruner) else rung + 1
