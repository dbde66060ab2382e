"""Optuna's storage with fewer statements, beside Optuna's own: the same calls leave the same tables."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from postgres import Postgres

from miniwin.search.few_statements import FewStatements

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "width": IntDistribution(1, 64, log=True),
    "rate": FloatDistribution(0.1, 0.9),
    "kind": CategoricalDistribution(["a", 2, None, True]),
}
VALUES = [1.5, -0.0, math.inf, -math.inf]
TABLES = ("trials", "trial_params", "trial_user_attributes", "trial_system_attributes", "trial_values")


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RDBStorage, FewStatements]:
    """Optuna's storage and ours, each in a database of its own."""
    if request.param == "sqlite":
        urls = [f"sqlite:///{tmp_path / name}" for name in ("theirs", "ours")]
    else:
        server: Postgres = request.getfixturevalue("postgres")
        urls = [server.database(f"{name}-{tmp_path.name}") for name in ("theirs", "ours")]
    return RDBStorage(urls[0]), FewStatements(urls[1])


def template(draw: random.Random, state: TrialState) -> FrozenTrial:
    params: dict[str, Any] = {"width": draw.randint(1, 64), "rate": draw.uniform(0.1, 0.9)}
    params |= {"kind": draw.choice(["a", 2, None, True])} if draw.random() < 0.7 else {}
    return create_trial(
        state=state,
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        user_attrs={"hash": "ü'\"", "rung:0": [1.25, None]} if draw.random() < 0.7 else {},
        system_attrs={"fixed_params": {"width": 3}} if draw.random() < 0.5 else {},
        values=draw.sample(VALUES, 2) if state is TrialState.COMPLETE else None,
    )


def seen(trial: FrozenTrial) -> dict[str, Any]:
    """All that a trial says, but when it ran."""
    return {
        **{name: getattr(trial, name) for name in ("number", "state", "user_attrs", "system_attrs")},
        **{name: list(getattr(trial, name).items()) for name in ("params", "distributions")},
        "values": trial.values,
        "intermediate": {step: repr(value) for step, value in trial.intermediate_values.items()},
        "times": (trial.datetime_start is None, trial.datetime_complete is None),
        "id": trial._trial_id,
    }


def rows(storage: RDBStorage) -> list[Any]:
    """What is in the tables of trials, but for times."""
    with storage.engine.connect() as connection:
        tables = [
            connection.execute(sqlalchemy.text(f"select * from {table} order by 1")).mappings().all()
            for table in TABLES
        ]
    return [[{name: row[name] for name in row if not name.startswith("datetime")} for row in table] for table in tables]


def end(storage: RDBStorage, trial: int, state: TrialState, values: list[float] | None, many: dict[str, Any]) -> bool:
    if isinstance(storage, FewStatements):
        return storage.end_trial(trial, state, values, many)
    for name, value in many.items():
        storage.set_trial_user_attr(trial, name, value)
    return storage.set_trial_state_values(trial, state, values)


def test_the_same_calls_leave_the_same_tables(pair: tuple[RDBStorage, FewStatements]) -> None:
    def both(call: Callable[..., Any], *given: Any) -> Any:
        """What a call gives, which has to be the same of both; or the kind of its error."""
        answers = []
        for storage in pair:
            try:
                answers.append(call(storage, *given))
            except (KeyError, ValueError, RuntimeError) as error:
                answers.append(type(error))
        assert answers[0] == answers[1], (call, given)
        return answers[0]

    def method(name: str, *given: Any) -> Any:
        return both(lambda storage: getattr(storage, name)(*given))

    draw = random.Random(0)
    for name in ("study", "other"):
        method("create_new_study", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE], name)
    ended = [TrialState.COMPLETE, TrialState.PRUNED]
    states = [TrialState.RUNNING] * 3 + [TrialState.WAITING, *ended]
    for step in range(150):
        study, trial = draw.choice([1, 1, 1, 2, 99]), draw.randint(1, 40)
        key, value = draw.choice(["hash", "state", "lease"]), draw.choice(["x", 3, None, {"a": [1.5]}])
        many = {name: step for name in draw.sample(["hash", "reason", "paused"], 2)}
        now, over = draw.choice(states), draw.choice(ended)
        numbers = draw.sample(VALUES, 2)
        kind = draw.choices(range(8), [6, 1, 3, 2, 1, 1, 2, 2])[0]
        if kind == 0:
            method("create_new_trial", study, template(draw, now))
        elif kind == 1:
            method("create_new_trial", study)
        elif kind == 2:
            method("set_trial_user_attr", trial, key, value)
        elif kind == 3:
            method("set_trial_system_attr", trial, key, value)
        elif kind == 4:
            method("set_trial_intermediate_value", trial, step % 3, draw.choice([*VALUES, math.nan]))
        elif kind == 5:
            method("set_trial_param", trial, "late", 3.0, IntDistribution(1, 9))
        elif kind == 6:
            method("set_trial_state_values", trial, now, numbers if now is TrialState.COMPLETE else None)
        else:
            both(end, trial, over, numbers if over is TrialState.COMPLETE else None, many)
        both(lambda storage, trial: seen(storage.get_trial(trial)), trial)
    assert rows(pair[0]) == rows(pair[1])
    for study in (1, 2, 99):
        both(lambda storage, study: [seen(one) for one in storage.get_all_trials(study)], study)
        for given in ((None, {2, 5, 99}, 9), ((TrialState.PRUNED,), set(), -1)):
            both(lambda storage, *given: [seen(one) for one in storage._get_trials(*given)], study, *given)
        method("get_study_user_attrs", study)
    theirs, ours = (storage.get_all_trials(1) for storage in pair)
    assert max(trial.number for trial in ours) > 20 and {trial.state for trial in ours} >= set(states)
    for one, other in zip(theirs, ours, strict=True):
        if one.datetime_start is not None and other.datetime_start is not None:
            assert abs((one.datetime_start - other.datetime_start).total_seconds()) < 600, "no hours of a time zone"


def test_what_was_made_is_what_is_read(pair: tuple[RDBStorage, FewStatements]) -> None:
    ours = pair[1]
    study = optuna.create_study(storage=ours, directions=["minimize", "minimize"])
    for name in ("first", "second"):
        study.set_user_attr(name, {"of": name})
    assert study.user_attrs == {"first": {"of": "first"}, "second": {"of": "second"}}
    made = ours._create_new_trial(study._study_id, template(random.Random(3), TrialState.RUNNING))
    assert seen(made) == seen(ours.get_trial(made._trial_id)) and made.number == 0
    ours.set_trial_intermediate_value(made._trial_id, 4, math.nan)
    assert math.isnan(ours.get_trial(made._trial_id).intermediate_values[4])
    other = create_trial(state=TrialState.RUNNING, params={"rate": 3}, distributions={"rate": IntDistribution(1, 9)})
    with pytest.raises(ValueError, match="Cannot set different distribution kind"):
        ours._create_new_trial(study._study_id, other)
    assert len(ours.get_all_trials(study._study_id)) == 1, "nothing is left of a trial that was refused"
    ours.end_trial(made._trial_id, TrialState.PRUNED, None, {"state": "pruned"})
    with pytest.raises(UpdateFinishedTrialError):
        ours.end_trial(made._trial_id, TrialState.COMPLETE, [1.0, 2.0], {"state": "complete"})
    assert ours.get_trial(made._trial_id).user_attrs["state"] == "pruned"
