"""How the next trial of a search is proposed: proposing.py begins.

Proposer(space).propose(history)      Optuna's parameters for the next trial
"""

from miniwin.search.samplers.optuna_pruners import make_pruner, pruner_step

__all__ = ["make_pruner", "pruner_step"]
