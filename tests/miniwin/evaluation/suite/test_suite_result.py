"""The result of a suite: exact JSON in and out, and a clear refusal of any other file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from miniwin.evaluation.suite.result import SuiteModel, SuiteResult, SuiteRow
from miniwin.specs import UserError


def row(measure: str = "recall", length: int | None = 2048, **fields: Any) -> SuiteRow:
    key = measure if length is None else f"{measure}@{length}"
    found: dict[str, Any] = {"value": 0.1 + 0.2, "low": 1e-17, "high": 1 / 3, "n": 3, "of": "examples", "unit": "share"}
    return SuiteRow(key=key, measure=measure, length=length, **{**found, **fields})


def result(rows: list[SuiteRow]) -> SuiteResult:
    return SuiteResult(
        suite="quick",
        spec={"name": "quick"},
        model=SuiteModel(ref="a/b \U0001f600", hash="h", weights="w", parameters=10, trained_length=128),
        device="cpu",
        dtype="float32",
        version="0.1.0",
        date="2026-11-30T03:00:00Z",
        rows=rows,
    )


ROWS = [
    row(samples={"right": [1, 0, 2], "asked": [2, 2, 2], "nats": [0.1, 1e300, 5e-324], "depth": [None, 0.25, 1]}),
    row("bits_per_byte", 512, detail={"buckets": [{"start": 0, "end": 128, "value": 2.5}]}, chance=None),
    row("copy", 64, value=None, low=None, high=None, n=0, note="an example takes at least 80 tokens"),
    row("prefill_exponent", None, times=None, better="lower"),
    row("recall", 512, low=None, high=None, n=1),
]


@pytest.mark.parametrize("rows", [[], ROWS])
def test_a_result_comes_back_equal(tmp_path: Path, rows: list[SuiteRow]) -> None:
    path = tmp_path / "result.json"
    before = result(rows)
    before.write(path)
    assert SuiteResult.read(path) == before
    assert SuiteResult.from_dict(json.loads(path.read_text(), parse_constant=pytest.fail)) == before


def test_rows_are_found_by_their_key() -> None:
    assert result(ROWS)["copy@64"].note == "an example takes at least 80 tokens"
    with pytest.raises(UserError, match=r"quick of .* has no row 'recal@2048': did you mean 'recall@2048'"):
        result(ROWS)["recal@2048"]


def test_numbers_that_json_has_no_name_for_are_refused() -> None:
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            row(value=number)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "is not the result of a suite: it has no kind; expected a file that `miniwin eval MODEL --suite NAME`"),
        ('{"kind": "model"}', "is not the result of a suite: it has kind 'model'"),
        ('{"kind": "suite-result", "format": 2}', "has format 2; this version of miniwin reads format 1: update"),
        ("{", r"is not JSON \(Expecting property name.*\) in line 1, column 2; expected a file"),
        (None, r"cannot be read \(No such file"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        SuiteResult.read(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "much"}, r"rows\.0\.value: got 'much'; expected a number"),
        ({"low": None}, "got only some of value, low and high"),
        ({"key": "recall@1"}, r"got key 'recall@1'; expected 'recall@2048'"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"value": 1e308}, r"rows\.0\.value: got 1e\+308; expected at most 1e\+100"),
        ({"n": 10**400}, r"rows\.0\.n: "),
        ({"samples": {"right": [9, 0], "asked": [4, 4]}}, "got 9 right of 4 asked; expected from 0 to all of them"),
        ({"samples": {"right": [1], "asked": [4, 4]}}, "got samples of different lengths"),
    ],
)
def test_a_damaged_row_is_named(change: dict[str, Any], message: str) -> None:
    data = result(ROWS).to_dict()
    data["rows"][0].update(change)
    with pytest.raises(UserError, match=message):
        SuiteResult.from_dict(data, "r.json")


def test_two_rows_of_one_key_are_refused() -> None:
    data = result(ROWS).to_dict()
    data["rows"].append(data["rows"][0])
    with pytest.raises(UserError, match="got two rows of the key 'recall@2048'"):
        SuiteResult.from_dict(data)
