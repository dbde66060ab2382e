"""Optuna's database storage with fewer statements: what a worker reads is two, and what it changes is one to six.

Optuna looks for a trial before each attribute that it sets, for an earlier use of each parameter before it makes a
trial, and reads each kind of what a trial has by itself. A statement costs a worker more time than the database, and
meanwhile the other workers of the study wait.

The tables are Optuna's, and hold what Optuna would write: tests/search/test_few_statements.py compares the two.
Whatever is out of the ordinary is left to Optuna, with its errors: databases other than PostgreSQL and SQLite, a trial
that is not there, a trial that has ended.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.distributions import json_to_distribution as _json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from miniwin.search.optuna_tables import Reading

KNOWN = ("postgresql", "sqlite")
_UNWRITTEN = {
    "INF_POS": math.inf,
    "INF_NEG": -math.inf,
    "NAN": math.nan,
}  # numbers that have a name in place of a value

json_to_distribution = lru_cache(maxsize=4096)(_json_to_distribution)  # thousands of trials have the same few


class FewStatements(RDBStorage):
    """Optuna's storage, faster."""

    @property
    def _known(self) -> bool:
        return self.engine.name in KNOWN and self.engine.dialect.insert_returning

    def bind(self, connection: Connection | None) -> None:
        """Send all that this thread says through one connection; None: as before, through any."""
        self.scoped_session().bind = connection or self.engine
        _bound(self).connection = connection

    # -- reading

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        from miniwin.search.optuna_tables import ATTRIBUTES_OF_STUDY

        with _transaction(self) as connection:
            rows = connection.execute(ATTRIBUTES_OF_STUDY, {"study": study_id}).all()
        return {key: json.loads(value) for key, value in rows} or super().get_study_user_attrs(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        from miniwin.search.optuna_tables import ONE

        found = self._read(ONE, {"trial": trial_id})
        return found[0] if found else super().get_trial(trial_id)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """What Optuna's cache asks for: the trials after one, and some of those before it."""
        from miniwin.search.optuna_tables import SOME

        before = sorted(one for one in included_trial_ids if one <= trial_id_greater_than)
        found = self._read(SOME, {"study": study_id, "after": trial_id_greater_than, "ids": before})
        if not found:
            self.get_study_name_from_id(study_id)  # KeyError if there is no such study
        return found if states is None else [trial for trial in found if trial.state in states]

    def _read(self, reading: Reading, given: dict[str, Any]) -> list[FrozenTrial]:
        with _transaction(self) as connection:
            rows = connection.execute(reading.trials, given).all()
            parts = connection.execute(reading.parts, given).all() if rows else ()
        return _trials(rows, parts)

    # -- changing

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        from miniwin.search import optuna_tables as tables

        new = template_trial
        if not self._known or new is None or new.intermediate_values:
            return super()._create_new_trial(study_id, new)
        made = deepcopy(new)
        with _transaction(self) as connection:
            if connection.execute(tables.LOCK_STUDY, {"study": study_id}).first() is None:
                raise KeyError(f"there is no study with the id {study_id}")
            self._check(connection, study_id, new.distributions)
            given = {"study": study_id, "now": new.state, "begun": _utc(new.datetime_start)}
            given["over"] = _utc(new.datetime_complete)
            made._trial_id, made.number = connection.execute(tables.MAKE_TRIAL, given).one()
            of = {"trial_id": made._trial_id}
            parts = {
                tables.params: [_param(name, value, new.distributions[name]) for name, value in new.params.items()],
                tables.user: [{"key": key, "value_json": json.dumps(value)} for key, value in new.user_attrs.items()],
                tables.system: [
                    {"key": key, "value_json": json.dumps(value)} for key, value in new.system_attrs.items()
                ],
                tables.values: _values(new.values),
            }
            for table, rows in parts.items():
                if rows:
                    connection.execute(tables.INSERT[table], [{**of, **row} for row in rows])
        return made

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.set_trial_user_attrs(trial_id, {key: value})

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Set several attributes at once."""
        from miniwin.search.optuna_tables import user

        if self._known:
            with _transaction(self) as connection:
                if self._set(connection, user, trial_id, attributes):
                    return
        for key, value in attributes.items():
            super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        from miniwin.search.optuna_tables import system

        if self._known:
            with _transaction(self) as connection:
                if self._set(connection, system, trial_id, {key: value}):
                    return
        super().set_trial_system_attr(trial_id, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if not state.is_finished():
            return super().set_trial_state_values(trial_id, state, values)
        return self.end_trial(trial_id, state, values, {})

    def end_trial(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> bool:
        """Set attributes, and end the trial with these values, in one change."""
        from miniwin.search import optuna_tables as tables

        if self._known:
            with _transaction(self) as connection:
                given = {"trial": trial_id, "now": state, "over": _utc(datetime.now())}
                if (
                    self._set(connection, tables.user, trial_id, attributes)
                    and connection.execute(tables.END_TRIAL, given).rowcount == 1
                ):
                    if rows := _values(values):
                        put = tables.put_values(self.engine.name)
                        connection.execute(put, [{"trial_id": trial_id, **row} for row in rows])
                    return True
        for key, value in attributes.items():
            super().set_trial_user_attr(trial_id, key, value)
        return super().set_trial_state_values(trial_id, state, values)

    def _set(self, connection: Connection, table: Any, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Set attributes of a trial. False if the trial is not there, or has ended."""
        from miniwin.search.optuna_tables import put_attribute

        put = put_attribute(self.engine.name, table)
        rows = ({"trial": trial_id, "name": key, "text": json.dumps(value)} for key, value in attributes.items())
        return all(connection.execute(put, row).rowcount == 1 for row in rows)

    def _check(self, connection: Connection, study_id: int, distributions: Mapping[str, BaseDistribution]) -> None:
        """ValueError if a parameter was of another kind before, or a choice had other choices."""
        from miniwin.search.optuna_tables import FIRST_DISTRIBUTION

        known: dict[tuple[int, str], BaseDistribution] = self.__dict__.setdefault("_first", {})
        for name, distribution in distributions.items():
            before = known.get((study_id, name))
            if before is None:
                row = connection.execute(FIRST_DISTRIBUTION, {"study": study_id, "name": name}).first()
                if row is None:
                    continue
                before = known[study_id, name] = json_to_distribution(row[0])
            check_distribution_compatibility(before, distribution)


def _bound(storage: RDBStorage) -> threading.local:
    """`connection`: what this thread's statements go through, if that is fixed."""
    bound: threading.local = storage.__dict__.setdefault("_bound", threading.local())
    return bound


@contextmanager
def _transaction(storage: RDBStorage) -> Iterator[Connection]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        bound = getattr(_bound(storage), "connection", None)
        if bound is None:
            with storage.engine.begin() as connection:
                yield connection
        else:
            with bound.begin():
                yield bound
    except SQLAlchemyError as error:
        raise StorageInternalError("the database refused a statement, or is away") from error


def _trials(rows: Sequence[Any], parts: Sequence[Any]) -> list[FrozenTrial]:
    from miniwin.search.optuna_tables import PARAM, SYSTEM, USER, VALUE

    found = {
        row[0]: FrozenTrial(
            number=row[1],
            state=row[2],
            value=None,
            datetime_start=_local(row[3]),
            datetime_complete=_local(row[4]),
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=row[0],
        )
        for row in rows
    }
    values: dict[int, dict[int, float]] = {}
    for kind, trial_id, name, number, text in parts:
        trial = found.get(trial_id)
        if trial is None:
            continue  # made between the two statements
        if kind == PARAM:
            distribution = trial.distributions[name] = json_to_distribution(text)
            trial.params[name] = distribution.to_external_repr(number)
        elif kind == USER:
            trial.user_attrs[name] = json.loads(text)
        elif kind == SYSTEM:
            trial.system_attrs[name] = json.loads(text)
        else:
            value = _UNWRITTEN[text] if number is None else number
            into = values.setdefault(trial_id, {}) if kind == VALUE else trial.intermediate_values
            into[int(name)] = value
    for trial_id, of in values.items():
        found[trial_id].values = [of[objective] for objective in sorted(of)]
    return list(found.values())


def _param(name: str, value: Any, distribution: BaseDistribution) -> dict[str, Any]:
    internal = distribution.to_internal_repr(value)
    return {"param_name": name, "param_value": internal, "distribution_json": distribution_to_json(distribution)}


def _values(values: Sequence[float] | None) -> list[dict[str, Any]]:
    from optuna.storages._rdb.models import TrialValueModel

    stored = [TrialValueModel.value_to_stored_repr(value) for value in values or ()]
    return [
        {"objective": objective, "value": value, "value_type": kind} for objective, (value, kind) in enumerate(stored)
    ]


def _utc(local: datetime | None) -> datetime | None:
    """As Optuna's tables have it: without a time zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def _local(utc: datetime | None) -> datetime | None:
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
