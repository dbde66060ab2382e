"""Reading a study's journal without Optuna: the same trials as Optuna's own reading, whatever was done to them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from miniwin.search.journal import Journal, from_optuna
from miniwin.search.storage import KillSafeLock
from miniwin.specs import UserError


def storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), lock_obj=KillSafeLock(path)))


def open_study(path: Path, name: str = "small") -> optuna.Study:
    directions = ["minimize", "minimize"]
    return optuna.create_study(storage=storage(path), study_name=name, directions=directions, load_if_exists=True)


def suggest(trial: optuna.Trial) -> None:
    trial.suggest_int("whole", 1, 9, step=2)
    trial.suggest_float("real", 1e-4, 1.0, log=True)
    trial.suggest_categorical("choice", ["[/b]", '{"type": "rope"}', 3, None, True])


def work(study: optuna.Study) -> None:
    """Everything that a search does to a study, and some that it does not."""
    study.set_user_attr("miniwin_study", "abc")
    study.enqueue_trial({"whole": 3, "real": 0.5}, user_attrs={"retry_of": 0})
    for n, state in enumerate((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE)):
        trial = study.ask()
        suggest(trial)
        trial.set_constraint("parameters <= 1e6", n - 0.5)
        trial.set_user_attr("state", "complete")
        trial.set_user_attr("state", state.name.lower())
        values = [float(n), float("inf") if n else 1e-300] if state == TrialState.COMPLETE else None
        study.tell(trial.number, values, state)
        study.tell(trial.number, values, state, skip_if_finished=True)
    suggest(study.ask())
    study.ask().suggest_int("whole", 1, 9, step=2)
    study.enqueue_trial({"whole": 5})
    study.add_trial(
        optuna.trial.create_trial(
            values=[1.0, 2.0],
            params={"choice": 3},
            distributions={"choice": optuna.distributions.CategoricalDistribution([1, 3])},
            user_attrs={"hash": "0"},
            system_attrs={"constraints:parameters <= 1e6": 0.5},
        )
    )


def param(name: str, distribution: dict[str, Any], value: float) -> dict[str, Any]:
    """A line by another version of Optuna, or another program."""
    text = json.dumps(distribution)
    return {"op_code": 5, "trial_id": 4, "param_name": name, "param_value_internal": value, "distribution": text}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    work(open_study(tmp_path / "journal.log"))
    return tmp_path / "journal.log"


def test_the_same_as_optuna_reads(journal: Path) -> None:
    study = open_study(journal)
    known = Journal(journal, "small").read()
    assert known is not None and known == from_optuna(study)
    assert [trial.state for trial in known.trials[:3]] == ["COMPLETE", "PRUNED", "FAIL"]
    assert {trial.state for trial in known.trials} == {"COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"}
    assert known.trials[0].constraints == {"parameters <= 1e6": -0.5} and known.trials[0].params["whole"] == 3
    assert [trial.ended for trial in known.trials[:3]] == [True, True, True] and not known.trials[4].ended


def test_it_reads_on_from_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    reading = Journal(path, "small")
    assert reading.read() is None
    study = open_study(path)
    first = reading.read()
    assert first is not None and first.trials == []
    for n in range(3):
        work(study)
        assert reading.read() == from_optuna(study) and len(from_optuna(study).trials) > 6 * n
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"study_id":0,"datetime_st')  # being written at this moment
    assert reading.read() == from_optuna(study)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))  # put back from a copy
    shorter = reading.read()
    assert shorter == Journal(path, "small").read() and shorter is not None and len(shorter.trials) == 1
    replacement = tmp_path / "other"
    work(open_study(replacement))
    os.replace(replacement, path)
    assert reading.read() == Journal(path, "small").read() == from_optuna(open_study(path))
    path.unlink()
    assert reading.read() is None


def test_other_studies_in_the_file_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    other, ours = open_study(path, "other"), open_study(path)
    work(other)
    work(ours)
    work(other)
    assert Journal(path, "small").read() == from_optuna(ours)
    assert Journal(path, "none").read() is None
    optuna.delete_study(study_name="small", storage=storage(path))
    assert Journal(path, "small").read() is None
    again = open_study(path)
    work(again)
    assert Journal(path, "small").read() == from_optuna(again)


def test_a_study_that_was_deleted_leaves_no_gap(tmp_path: Path) -> None:
    """A trial of a study that is gone has no place in the file, though its line is there."""
    path = tmp_path / "journal.log"
    open_study(path, "other")
    ours = open_study(path)
    optuna.delete_study(study_name="other", storage=storage(path))
    with path.open("a") as file:  # by a worker that had not seen it yet
        file.write('{"op_code":4,"worker_id":"w","study_id":0,"datetime_start":"2026-01-01T00:00:00.000000"}\n')
    work(ours)
    assert Journal(path, "small").read() == from_optuna(ours)


@pytest.mark.parametrize(
    "lines",
    [
        [{"op_code": 4, "study_id": 7, "datetime_start": None}],
        [param("x", {"type": "int", "low": 1, "high": 9}, 3.0)],
        [
            param("x", {"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}, 0),
            param("x", {"name": "CategoricalDistribution", "attributes": {"choices": [3, 4]}}, 1),
        ],
        [{"op_code": 9, "trial_id": 4, "system_attr": {"constraints": [1.0, -0.5]}}],
    ],
)
def test_what_is_not_known_here_is_left_to_optuna(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    path = tmp_path / "journal.log"
    study = open_study(path)
    work(study)
    reading = Journal(path, "small")
    assert reading.read() == from_optuna(study)
    with path.open("a") as file:
        file.writelines(json.dumps({"worker_id": "w", **line}) + "\n" for line in lines)
    before = path.read_bytes()
    for _ in range(2):
        assert reading.read() == from_optuna(optuna.load_study(study_name="small", storage=storage(path)))
        assert Journal(path, "none").read() is None
    assert path.read_bytes() == before
    work(study)
    assert reading.read() == from_optuna(study)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\x00\xff",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"op_code": 99}',
        b'{"op_code": "4"}',
        b'{"op_code": 4}, {"op_code": 4}',
        b'{"op_code": 4, "study_id": 7, "datetime_start": null}',
        b'{"op_code": 6, "trial_id": 4, "state": 9, "values": null}',
        b'{"op_code": 6, "trial_id": 4, "state": 1, "values": 1.0}',
        b'{"op_code": 8, "trial_id": 4, "user_attr": 1}',
        b'{"op_code": 5, "trial_id": 4, "param_name": "x", "param_value_internal": 1, "distribution": "{}"}',
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_damaged_line_is_named(journal: Path, line: bytes, last: bool) -> None:
    lines = journal.read_bytes().splitlines()
    place = len(lines) if last else len(lines) - 1
    lines.insert(place, line)
    journal.write_bytes(b"\n".join(lines) + b"\n")
    reading = Journal(journal, "small")
    for _ in range(2):  # and again, when asked again
        with pytest.raises(UserError, match=rf"journal\.log:{place + 1}: this is no line of Optuna's journal"):
            reading.read()


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "journal.log").mkdir()
    with pytest.raises(UserError, match=r"journal\.log cannot be read \(.+\); expected the journal"):
        Journal(tmp_path / "journal.log", "small").read()
