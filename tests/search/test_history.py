"""Optuna's trials as the history that samplers and pruners see."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from miniwin.search.brackets import Rule, bracket_of
from miniwin.search.history import of_trials


def trial(number: int, told: TrialState, values: list[float] | None = None, **attributes: Any) -> FrozenTrial:
    given = {key.replace("_", ":"): value for key, value in attributes.items()}
    made = create_trial(
        state=told, values=values, params={"v": 1}, distributions={"v": IntDistribution(1, 9)}, user_attrs=given
    )
    made.number = number
    return made


def test_trials_become_a_history() -> None:
    running, pruned, complete = TrialState.RUNNING, TrialState.PRUNED, TrialState.COMPLETE
    found = of_trials(
        [
            trial(
                0, complete, [1.0, 8.0], state="complete", rung_0=[3.0, 8.0], rung_1=[2.0, 8.0], paused=0, promoted=0
            ),
            trial(1, running),
            trial(2, running, rung_0=[4.0, 9.0], paused=0),
            trial(3, running, rung_0=[4.0, 9.0], paused=0, promoted=0),
            trial(4, pruned, state="infeasible"),
            trial(5, pruned, state="pruned", rung_0=[4.0, 9.0], rung_1=[None, 9.0]),
            trial(6, pruned, state="pruned", rung_0=[5.0, 9.0], paused=0),
            trial(7, TrialState.WAITING),
            trial(8, pruned, state="pruned", rung_0=[5.0, 9.0], paused=0),
            trial(9, running, rung_0=[5.0, 9.0], paused=0, promoted=0, continues=8),
            trial(10, complete, [1.5, 8.0]),  # of a study from before rungs were told
        ],
        rungs=2,
        objectives=2,
    )
    assert [(one.number, one.state) for one in found] == [
        (0, "complete"), (1, "running"), (2, "paused"), (3, "running"), (4, "infeasible"), (5, "pruned"),
        (6, "paused"), (9, "running"), (10, "complete"),
    ]  # fmt: skip
    by_number = {one.number: one for one in found}
    assert by_number[0].rungs == ((3.0, 8.0), (2.0, 8.0), (1.0, 8.0))
    assert by_number[2].rungs == ((4.0, 9.0),) and by_number[1].rungs == ()
    assert math.isnan(by_number[5].rungs[1][0]) and by_number[5].rungs[1][1] == 9.0
    assert len(by_number[10].rungs) == 3 and by_number[10].rungs[2] == (1.5, 8.0)
    assert all(math.isnan(value) for rung in by_number[10].rungs[:2] for value in rung)
    assert all(one.params == {"v": 1} for one in found)


def test_a_trial_that_continues_another_stays_in_its_bracket() -> None:
    rule = Rule(reduction=2, rungs=2, brackets=3)
    brackets = [bracket_of(number, rule) for number in range(4)]
    assert brackets[0] != brackets[1] != brackets[3]
    ended = trial(1, TrialState.PRUNED, state="pruned", rung_0=[5.0], rung_1=[5.0], paused=1)
    further = trial(3, TrialState.RUNNING, rung_0=[5.0], rung_1=[5.0], promoted=1, continues=1, first=1)
    found = of_trials([trial(0, TrialState.RUNNING), ended, further], 2, 1, rule)
    assert [(one.number, one.bracket) for one in found] == [(0, brackets[0]), (3, brackets[1])]


def test_a_constraint_of_a_trial_is_in_its_history() -> None:
    study = optuna.create_study()
    study.ask().set_constraint("v <= 3", 2.0)
    assert of_trials(study.get_trials(), 2, 1)[0].constraints == {"v <= 3": 2.0}
