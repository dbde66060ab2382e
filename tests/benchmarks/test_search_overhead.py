"""The benchmark of what a search costs: its parts run, at the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.search_overhead import looking, main, no_op


def test_looking_and_working_are_measured(tmp_path: Path) -> None:
    rows = looking(12)
    assert [row["what"] for row in rows] == [f"{command} of 12 trials" for command in ("status", "report", "export")]
    (row,) = no_op(6, 2, postgres=False)
    assert row["what"] == "6 no-op trials, 2 workers, journal"
    assert row["trials_per_second"] * row["wall_seconds"] == pytest.approx(6)
    main(["trials", "--trained", "1", "--json", str(tmp_path / "a.json")])
    said = json.loads((tmp_path / "a.json").read_text())
    (row,) = said["rows"]
    assert said["machine"]["miniwin"] and said["command"].startswith("benchmarks/search_overhead.py trials --trained 1")
    assert 0 < row["share_of_20_s"] * 20 == pytest.approx(row["wall_seconds"])
