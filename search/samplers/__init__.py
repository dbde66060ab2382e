"""How the next trial of a search is proposed."""

from miniwin.search.samplers.optuna_pruners import make_pruner, pruner_step
from miniwin.search.samplers.optuna_samplers import make_sampler

__all__ = ["make_pruner", "make_sampler", "pruner_step"]
