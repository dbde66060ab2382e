"""What is known of the trials of a study: enough to propose the next one, and to judge who goes on.

Samplers and pruners are functions of a list of `Tried`. So the workers of a search and a replay of a table of results
call the same functions. Here Optuna's trials become such a list. What Optuna has no place for stands in user attributes
of its trials, so that every machine that sees the storage knows it:

    rung:0, rung:1, ...   the values of all objectives at that rung; null: not a number, or not known before the end
    paused, promoted      the last rung at which the trial was stopped, and the last that it was allowed to pass
    continues             the number of an ended trial, whose run this one takes further
    first                 the number of the first trial of this run, which this one takes further, or tries again
    asked:0, asked:1, ... whether Optuna's pruner let the trial go on from that rung
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from miniwin.search.brackets import Rule, bracket_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from miniwin.search.journal import Told
    from miniwin.search.study import Study

RUNG, PAUSED, PROMOTED, CONTINUES, FIRST = "rung:", "paused", "promoted", "continues", "first"
ASKED = "asked:"
ENDED = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}  # where a trial does not say more itself


@dataclass(frozen=True)
class Tried:
    """One trial.

    params: Optuna's parameters, as the storage has them. state: running, paused, complete, pruned, failed, infeasible,
    duplicate. rungs: the values of all objectives, in the order of the spec and with their signs as they are, after
    rung 0, 1, ...; the last rung is the whole budget. NaN: the trial diverged, or the value was not measured there.
    bracket: the rung at which the trial is judged first. constraints: at most 0 where a constraint holds.
    """

    number: int
    params: dict[str, Any]
    state: str
    rungs: tuple[tuple[float, ...], ...] = ()
    bracket: int = 0
    constraints: dict[str, float] = field(default_factory=dict)


def history(study: Study, trials: Sequence[FrozenTrial] | None = None) -> list[Tried]:
    """The trials of a study, by number; without those that wait in the queue. trials: if they have just been read."""
    if trials is None:
        trials = study.optuna.get_trials(deepcopy=False)
    return of_trials(trials, len(study.rungs), len(study.spec.objectives), study.rule, study.tried)


def of_trials(
    trials: Sequence[FrozenTrial],
    rungs: int,
    objectives: int,
    rule: Rule | None = None,
    ended: dict[int, Tried] | None = None,
) -> list[Tried]:
    """Optuna's trials as a history. rungs: how many there are before the whole budget. A trial that another trial takes
    further, or tries again, is not listed: the other one is. ended: what is kept from one call to the next."""
    further = {*continued(trials), *(trial.user_attrs.get("retry_of") for trial in trials)}
    ended = {} if ended is None else ended
    found = []
    for trial in trials:
        if trial.state.name == "WAITING" or trial.number in further:
            continue
        tried = ended.get(trial.number)
        if tried is None:
            tried = Tried(
                trial.number,
                dict(trial.params),
                state_of(trial),
                _rungs(trial, rungs, objectives),
                0 if rule is None else bracket_of(trial.user_attrs.get(FIRST, trial.number), rule),
                constraints=dict(trial.constraints),
            )
            if trial.state.is_finished():
                ended[trial.number] = tried
        found.append(tried)
    return found


def continued(trials: Sequence[FrozenTrial | Told]) -> dict[int, int]:
    """The trials whose run another trial takes further: their numbers, and those of the others."""
    return {t.user_attrs[CONTINUES]: t.number for t in trials if CONTINUES in t.user_attrs}


def is_paused(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial with these user attributes was stopped at a rung that it may not pass yet."""
    return bool(attributes.get(PAUSED, -1) > attributes.get(PROMOTED, -1))


def state_of(trial: FrozenTrial) -> str:
    """A trial that was paused until the study ended is still called paused: a larger budget may take it further."""
    if trial.state.name in ("RUNNING", "PRUNED") and is_paused(trial.user_attrs):
        return "paused"
    return str(trial.user_attrs.get("state", ENDED[trial.state.name])) if trial.state.is_finished() else "running"


def _rungs(trial: FrozenTrial, rungs: int, objectives: int) -> tuple[tuple[float, ...], ...]:
    unknown = (math.nan,) * objectives
    found = [trial.user_attrs.get(f"{RUNG}{rung}") for rung in range(rungs)]
    known = [unknown if row is None else tuple(math.nan if v is None else float(v) for v in row) for row in found]
    if trial.state.name == "COMPLETE":
        return (*known, tuple(trial.values))
    reached = max((rung + 1 for rung, row in enumerate(found) if row is not None), default=0)
    return tuple(known[:reached])
