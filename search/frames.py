"""A study as a table: a row for each trial, and one with number -1 for the baseline.

    number, state, reason, duplicate_of, best       best: on the front, or the best trial of one objective
    param:NAME                                      what the sampler chose; empty where the trial has no such variable
    value:OBJECTIVE                                 measured when training was over; the mean of several seeds
    spread:OBJECTIVE                                standard error of that mean, with several seeds
    loss:LENGTH                                     nats per byte at that length
    rung:TOKENS:OBJECTIVE                           measured while training, after so many tokens
    constraint:TEXT                                 at most 0: it holds
    learning_rate, rate_at_edge                     where it is tuned: the best, and whether it is the last of the sweep
    layout, hash, seed, tokens, seconds, attempts, started, finished, problem

A column holds one type. Where trials chose values of several types, such as text and a number, or whole fields, the
column holds JSON text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.files.writing import replacing
from miniwin.search.records import read_study
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import UserError, user_path

if TYPE_CHECKING:
    import pandas

Columns = dict[str, list[Any]]
RATES = ("learning_rate", "rate_at_edge")
ENDS = ("layout", "hash", "seed", "tokens", "seconds", "attempts")


def to_frame(study: str | Path | StudyData) -> pandas.DataFrame:
    """The trials of a study as a pandas DataFrame. study: its folder, its name, or what `read_study` gave.

    Raises:
        UserError: there is no such study, or pandas is not installed.
    """
    columns = to_columns(study if isinstance(study, StudyData) else read_study(study))
    try:
        import pandas
    except ImportError:
        raise UserError(
            "a DataFrame needs pandas, which is not installed: pip install 'miniwin[pandas]'; or export to a CSV file"
        ) from None
    return pandas.DataFrame(columns)


def to_columns(data: StudyData) -> Columns:
    """The table, a list for each column."""
    trials = [*([data.baseline] if data.baseline is not None else []), *data.trials]
    best = {trial.number for trial in data.front}
    columns: Columns = {
        "number": [trial.number for trial in trials],
        "state": [trial.state for trial in trials],
        "reason": [trial.reason for trial in trials],
        "duplicate_of": [trial.duplicate_of for trial in trials],
        "best": [trial.number in best for trial in trials],
    }

    def add(prefix: str, found: list[dict[str, Any]], names: Iterable[str]) -> None:
        for name in names:
            columns[f"{prefix}:{name}"] = [_plain(one.get(name)) for one in found]

    params = [trial.params for trial in trials]
    add("param", params, _names(params, data.spec.variables))
    values = [trial.values for trial in trials]
    add("value", values, _names(values, (objective.name for objective in data.objectives)))
    if data.spec.seeds > 1:
        add("spread", [trial.spread for trial in trials], (objective.name for objective in data.objectives))
    losses = [{str(length): loss for length, loss in trial.losses.items()} for trial in trials]
    add("loss", losses, sorted(_names(losses), key=int))
    rungs = [_rungs(trial) for trial in trials]
    add("rung", rungs, sorted(_names(rungs), key=lambda name: int(name.partition(":")[0])))
    constraints = [trial.constraints for trial in trials]
    add("constraint", constraints, _names(constraints, data.spec.constraints))
    for name in () if data.spec.learning_rate is None else RATES:
        columns[name] = [getattr(trial, name) for trial in trials]
    for name in ENDS:
        # An infeasible trial has no layout, which a CSV file can say only by an empty cell.
        columns[name] = [None if (value := getattr(trial, name)) == "" else value for trial in trials]
    for name in ("started", "finished"):
        columns[name] = [_time(getattr(trial, name)) for trial in trials]
    columns["problem"] = [trial.problem for trial in trials]
    return {name: _of_one_type(column) for name, column in columns.items()}


def export_study(study: str | Path, to: str | Path, form: str | None = None, *, replace: bool = False) -> Path:
    """Write the trials of a study to a file in one step. form: csv or parquet; None: as the name of the file ends.

    Raises:
        UserError: there is no such study; the form is another; the file is there and `replace` is not given; its folder
            is not; or pyarrow, which writes Parquet, is not installed.
    """
    path = user_path(to)
    form = path.suffix.lstrip(".").lower() if form is None else form
    if form not in WRITERS:
        raise UserError(f"--to {path}: got {form or 'no suffix'!r}; expected {' or '.join(WRITERS)}, or say --format")
    if path.is_dir():
        raise UserError(f"--to {path} is a folder; expected the name of a file, such as {path / 'trials.csv'}")
    if not path.parent.is_dir():
        raise UserError(f"--to {path}: there is no folder {path.parent}; make it, or choose another place")
    if path.exists() and not replace:
        raise UserError(f"--to {path} is there already: choose another file, or add --replace")
    columns = to_columns(read_study(study))
    WRITERS[form](columns, path)
    return path


def _write_csv(columns: Columns, path: Path) -> None:
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(map(_cell, row))


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else value


def _write_parquet(columns: Columns, path: Path) -> None:
    try:
        import pyarrow
        from pyarrow.parquet import write_table
    except ImportError:
        raise UserError(
            "a Parquet file needs pyarrow, which is not installed: pip install 'miniwin[parquet]'; or export to a CSV "
            "file"
        ) from None
    # Halves of surrogate pairs, which stand for bytes of a file's name that are not UTF-8, are no text to Arrow.
    sound = {name: [_sound(value) for value in column] for name, column in columns.items()}
    with replacing(path) as temporary:
        write_table(pyarrow.table(sound), temporary)


WRITERS: dict[str, Callable[[Columns, Path], None]] = {"csv": _write_csv, "parquet": _write_parquet}


def _names(rows: Sequence[dict[str, Any]], first: Iterable[str] = ()) -> list[str]:
    """The keys of all rows, in the order in which they appear, after those that come first."""
    return list(dict.fromkeys([*first, *(name for row in rows for name in row)]))


def _rungs(trial: TrialRecord) -> dict[str, Any]:
    return {f"{rung['tokens']}:{name}": value for rung in trial.rungs for name, value in rung["values"].items()}


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:  # written by hand
        return None


def _plain(value: Any) -> Any:
    """The value, or its JSON text if it is a list or a mapping."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _of_one_type(column: list[Any]) -> list[Any]:
    kinds = {type(value) for value in column if value is not None}
    if len(kinds) <= 1:
        return column
    if kinds == {int, float}:
        return [value if value is None else float(value) for value in column]
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in column]


def _sound(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
