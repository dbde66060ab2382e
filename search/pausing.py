"""Trials that wait at a rung: which of them goes on, and how they end.

A trial is paused while its attribute `paused` is above `promoted` (history.py). So one write pauses a trial, and one
write lets it go on; whoever finds it then running without a lease takes it over, as any orphan. To Optuna a paused
trial runs, since its values may still change. Once the study is over, it is pruned.

Optuna does not let a trial run again that has ended. If a larger budget makes such a trial one of the best of its rung,
a new trial takes its run further: it has the same parameters and rungs, and says which trial it `continues`. The old
one no longer counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from miniwin.search.entries import OUTCOME
from miniwin.search.halving import last_chance, promotable
from miniwin.search.history import CONTINUES, FIRST, PROMOTED, RUNG, Tried, history, is_paused
from miniwin.search.study import Study
from miniwin.search.telling import tell

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial


def promote_paused(study: Study, trials: Sequence[FrozenTrial], *, spare: int = 0, last: bool = False) -> Trial | None:
    """Let the next paused trial go on; None if no trial may. trials: all there are. spare: how many are left of the
    budget when there is nothing new to try. last: the study would end otherwise."""
    import optuna

    if study.rule is None:
        return None
    directions = [objective.direction for objective in study.spec.parsed_objectives]
    tried = history(study, trials)
    chosen = last_chance(tried, directions, study.rule) if last else promotable(tried, directions, study.rule, spare)
    if chosen is None:
        return None
    frozen = next(trial for trial in trials if trial.number == chosen.number)
    if frozen.state.is_finished():
        return _continue(study, frozen, chosen)
    trial = optuna.Trial(study.optuna, frozen._trial_id)
    trial.set_user_attr(PROMOTED, len(chosen.rungs) - 1)
    return trial


def _continue(study: Study, ended: FrozenTrial, chosen: Tried) -> Trial:
    """A new trial that takes the run of one that has ended further."""
    import optuna
    from optuna.trial import TrialState, create_trial

    kept = {name: value for name, value in ended.user_attrs.items() if name.startswith(RUNG) or name == OUTCOME}
    kept |= {PROMOTED: len(chosen.rungs) - 1, CONTINUES: ended.number}
    kept |= {FIRST: ended.user_attrs.get(FIRST, ended.number)}
    study.optuna.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=ended.params,
            distributions=ended.distributions,
            user_attrs=kept,
            intermediate_values=ended.intermediate_values,
        )
    )
    made = next(t for t in study.optuna.get_trials(deepcopy=False) if t.user_attrs.get(CONTINUES) == ended.number)
    return optuna.Trial(study.optuna, made._trial_id)


def end_paused(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Tell Optuna that the trials that still wait are pruned: the study is over."""
    import optuna

    for frozen in trials:
        if frozen.state.name == "RUNNING" and is_paused(frozen.user_attrs):
            outcome = study.trial_entry(frozen, str(frozen.user_attrs.get("hash")), frozen.user_attrs).outcome()
            reason = None if outcome is None else outcome.reason
            tell(study, optuna.Trial(study.optuna, frozen._trial_id), "pruned", reason)
