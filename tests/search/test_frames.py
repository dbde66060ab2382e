"""A study as a table: CSV, Parquet and a DataFrame say the same, and nothing is written over."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import miniwin_without_torch
from search_helpers import make, write_search
from tiny import run_cli

from miniwin.search import StudyData, TrialRecord, export_study, read_study, to_frame
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.frames import to_columns
from miniwin.specs import UserError, load_search_spec


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with every state, nothing of it trained."""
    folder = tmp_path_factory.mktemp("frames")
    study = create_study(load_search_spec(write_search(folder)), folder, out=folder / "study")
    while isinstance(claim := take_work(study, "0"), Claim):
        number = -1 if claim.number is None else claim.number
        claim.outcome.rungs = [{"tokens": 384, "values": {"loss@64": 3.0 + number}}]
        claim.outcome.tokens, claim.outcome.seconds = 1536, 61.5
        if number % 5 == 1:
            claim.outcome.end("pruned", 'behind, "as they say"')
        else:
            claim.outcome.values, claim.outcome.losses = {"loss@64": 2.0 + number}, {64: 2.0 + number, 32: 2.5}
            claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return study.folder


@pytest.fixture(scope="module")
def data(searched: Path) -> StudyData:
    return read_study(searched)


def test_a_row_says_what_its_record_says(data: StudyData) -> None:
    columns = to_columns(data)
    assert list(columns) == [
        *("number", "state", "reason", "duplicate_of", "best", "param:factor", "param:ratio", "param:window"),
        *("value:loss@64", "loss:32", "loss:64", "rung:384:loss@64", "constraint:window * factor <= 16"),
        *("layout", "hash", "seed", "tokens", "seconds", "attempts", "started", "finished", "problem"),
    ]
    assert data.baseline is not None
    records = [data.baseline, *data.trials]
    assert {record.state for record in records} >= {"complete", "pruned"}
    for row, record in enumerate(records):
        at = {name: column[row] for name, column in columns.items()}
        assert [at[name] for name in ("number", "state", "reason", "hash", "layout", "seed", "seconds")] == [
            *(
                record.number,
                record.state,
                record.reason,
                record.hash,
                record.layout or None,
                record.seed,
                record.seconds,
            )
        ]
        assert [at[f"param:{name}"] for name in data.spec.variables] == [
            record.params.get(name) for name in data.spec.variables
        ]
        assert at["value:loss@64"] == record.values.get("loss@64") and at["loss:32"] == record.losses.get(32)
        assert at["rung:384:loss@64"] == (record.rungs[0]["values"]["loss@64"] if record.rungs else None)
        assert at["constraint:window * factor <= 16"] == record.constraints.get("window * factor <= 16")
        assert at["best"] == (record == data.best)
        if record.trained:
            assert isinstance(at["started"], datetime) and at["started"] <= at["finished"]


def test_the_three_forms_agree(searched: Path, data: StudyData, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = to_frame(searched)
    assert frame.equals(to_frame(data)) and len(frame) == len(data.trials) + 1
    assert frame["number"].tolist()[0] == -1 and frame["best"].sum() == 1
    assert str(frame["started"].dtype).startswith("datetime64[") and frame["value:loss@64"].dtype == float
    parquet = pandas.read_parquet(export_study(searched, tmp_path / "a.parquet"))
    text = pandas.read_csv(export_study(searched, tmp_path / "a.csv"), parse_dates=["started", "finished"])
    for other in (parquet, text):
        assert list(other) == list(frame)
        for name in frame:
            if frame[name].notna().any():
                wanted = [None if pandas.isna(value) else value for value in frame[name]]
                assert [None if pandas.isna(value) else value for value in other[name]] == wanted, name


def test_a_column_has_one_type(data: StudyData, tmp_path: Path) -> None:
    choices = [16, "wide", None, {"type": "rope"}, [1, 2]]
    trials = [TrialRecord(n, "running", {"window": c, "ratio": n or 0.5}) for n, c in enumerate(choices)]
    columns = to_columns(replace(data, trials=trials, baseline=None))
    assert columns["param:window"] == ["16", "wide", None, '{"type": "rope"}', "[1, 2]"]
    assert columns["param:ratio"] == [0.5, 1.0, 2.0, 3.0, 4.0]
    assert columns["param:factor"] == [None] * 5 and columns["started"] == [None] * 5
    dated = replace(trials[0], started="2026-01-02T03:04:05+00:00", finished="yesterday")
    columns = to_columns(replace(data, trials=[dated], baseline=None))
    assert columns["started"] == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)] and columns["finished"] == [None]


def test_a_csv_file_is_one(searched: Path, data: StudyData, tmp_path: Path) -> None:
    with open(export_study(searched, tmp_path / "a.txt", "csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data.trials) + 1 and {row["best"] for row in rows} == {"true", "false"}
    assert {row["reason"] for row in rows} >= {'behind, "as they say"', ""}
    assert next(row["seconds"] for row in rows if row["state"] == "complete") == "61.5"


def test_a_file_is_written_over_only_if_asked(searched: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine")
    said = (f"--to {path} is there already: choose another file, or add --replace", path.read_text())
    code, _, err = run_cli("search", "export", str(searched), "--to", str(path))
    assert code == 2 and said[0] in err and path.read_text() == "mine"
    code, out, _ = run_cli("search", "export", str(searched), "--to", str(path), "--replace")
    assert (code, out) == (0, f"written: {path}\n") and path.read_text().startswith("number,state,")
    for name, form, message in (
        ("b", None, "got 'no suffix'; expected csv or parquet, or say --format"),
        ("b.xlsx", None, "got 'xlsx'; expected csv or parquet"),
        ("b.csv", "json", "got 'json'; expected csv or parquet"),
        ("none/b.csv", None, f"there is no folder {tmp_path / 'none'}"),
        (".", "csv", "is a folder; expected the name of a file"),
    ):
        with pytest.raises(UserError) as caught:
            export_study(searched, tmp_path / name, form)
        assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_a_library_that_is_missing_is_named(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    extra = {"pandas": "pandas", "pyarrow": "parquet"}[library]
    with pytest.raises(UserError, match=rf"needs {library}, which is not installed: pip install 'miniwin\[{extra}\]'"):
        to_frame(searched) if library == "pandas" else export_study(searched, tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_an_export_needs_neither_torch_nor_optuna(searched: Path, tmp_path: Path) -> None:
    ((code, _, err),), loaded = miniwin_without_torch(
        ["search", "export", str(searched), "--to", str(tmp_path / "a.csv")]
    )
    assert code == 0, err
    assert not loaded & {"torch", "optuna", "pandas", "pyarrow", "numpy"}


def test_a_study_that_has_not_begun_is_an_empty_table(tmp_path: Path) -> None:
    path = export_study(make(tmp_path).folder, tmp_path / "a.csv")
    assert path.read_text().startswith("number,state,reason,") and path.read_text().count("\n") == 1
