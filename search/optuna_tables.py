"""Statements on the tables in which Optuna keeps a study: made once, since to make one takes longer than to run it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module
from typing import Any

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import (
    Float,
    String,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    union_all,
    update,
)

OPEN = (TrialState.RUNNING, TrialState.WAITING)  # states of a trial that may still be changed
PARAM, USER, SYSTEM, VALUE, INTERMEDIATE = range(5)

studies: Any = models.StudyModel.__table__
study_attributes: Any = models.StudyUserAttributeModel.__table__
trials: Any = models.TrialModel.__table__
params: Any = models.TrialParamModel.__table__
user: Any = models.TrialUserAttributeModel.__table__
system: Any = models.TrialSystemAttributeModel.__table__
values: Any = models.TrialValueModel.__table__
intermediate: Any = models.TrialIntermediateValueModel.__table__

TRIAL = trials.c.trial_id == bindparam("trial")
# Of a study: the trials after one, and some of those before it.
LATER = (trials.c.study_id == bindparam("study")) & or_(
    trials.c.trial_id > bindparam("after"), trials.c.trial_id.in_(bindparam("ids", expanding=True))
)

ATTRIBUTES_OF_STUDY = select(study_attributes.c.key, study_attributes.c.value_json).where(
    study_attributes.c.study_id == bindparam("study")
)
# Whoever makes another trial waits here, so that no number is given twice.
LOCK_STUDY = select(studies.c.study_id).where(studies.c.study_id == bindparam("study")).with_for_update()
FIRST_DISTRIBUTION = (
    select(params.c.distribution_json)
    .join(trials, trials.c.trial_id == params.c.trial_id)
    .where(trials.c.study_id == bindparam("study"), params.c.param_name == bindparam("name"))
    .limit(1)
)
MAKE_TRIAL = (
    insert(trials)
    .values(
        study_id=bindparam("study"),
        state=bindparam("now"),
        number=select(func.count()).where(trials.c.study_id == bindparam("study")).scalar_subquery(),
        datetime_start=bindparam("begun"),
        datetime_complete=bindparam("over"),
    )
    .returning(trials.c.trial_id, trials.c.number)
)
END_TRIAL = (
    update(trials)
    .where(TRIAL, trials.c.state.in_(OPEN))
    .values(state=bindparam("now"), datetime_complete=bindparam("over"))
)
INSERT = {table: insert(table) for table in (params, user, system, values)}


class Reading:
    """Statements that read the trials for which a condition holds."""

    def __init__(self, where: Any) -> None:
        self._where = where

    @cached_property
    def trials(self) -> Any:
        """Rows of (id, number, state, start, end), by id."""
        c = trials.c
        columns = (c.trial_id, c.number, c.state, c.datetime_start, c.datetime_complete)
        return select(*columns).where(self._where).order_by(c.trial_id)

    @cached_property
    def parts(self) -> Any:
        """What they have: rows of (kind, trial, name, number, text), in the order in which they were written."""
        wanted = select(trials.c.trial_id).where(self._where).cte("wanted")
        none = cast(null(), Float)

        def part(kind: int, table: Any, id: Any, name: Any, number: Any, text: Any) -> Any:
            columns: tuple[Any, ...] = (literal_column(str(kind)).label("kind"), table.c.trial_id, id.label("id"))
            named = (name.label("name"), number.label("number"), text.label("text"))
            return select(*columns, *named).join(wanted, wanted.c.trial_id == table.c.trial_id)

        p, u, s, v, i = params.c, user.c, system.c, values.c, intermediate.c
        found = union_all(
            part(PARAM, params, p.param_id, p.param_name, p.param_value, p.distribution_json),
            part(USER, user, u.trial_user_attribute_id, u.key, none, u.value_json),
            part(SYSTEM, system, s.trial_system_attribute_id, s.key, none, s.value_json),
            part(VALUE, values, v.trial_value_id, cast(v.objective, String), v.value, cast(v.value_type, String)),
            part(
                INTERMEDIATE,
                intermediate,
                i.trial_intermediate_value_id,
                cast(i.step, String),
                i.intermediate_value,
                cast(i.intermediate_value_type, String),
            ),
        ).subquery()
        c = found.c
        return select(c.kind, c.trial_id, c.name, c.number, c.text).order_by(c.kind, c.id)


ONE = Reading(TRIAL)
SOME = Reading(LATER)


@cache
def put_attribute(engine: str, table: Any) -> Any:
    """Set an attribute of a trial that has not ended. It changes one row, or none."""
    row = select(
        trials.c.trial_id,
        bindparam("name", type_=table.c.key.type),
        bindparam("text", type_=table.c.value_json.type),
    ).where(TRIAL, trials.c.state.in_(OPEN))
    new = _upsert(engine)(table).from_select(["trial_id", "key", "value_json"], row)
    put = new.on_conflict_do_update(index_elements=["trial_id", "key"], set_={"value_json": new.excluded.value_json})
    return put.execution_options(preserve_rowcount=True)


@cache
def put_values(engine: str) -> Any:
    """Set the values of a trial."""
    new = _upsert(engine)(values)
    put = {"value": new.excluded.value, "value_type": new.excluded.value_type}
    return new.on_conflict_do_update(index_elements=["trial_id", "objective"], set_=put)


def _upsert(engine: str) -> Callable[..., Any]:
    """The insert of a database that can also replace what is there."""
    found: Callable[..., Any] = import_module(f"sqlalchemy.dialects.{engine}").insert
    return found
