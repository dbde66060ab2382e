"""`make test` says at once when there is no room for what the tests write."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from paths import ROOT
from room import lacking, place

SCRIPT = "tests/support/room.py"


def test_too_little_room_is_said_with_numbers_and_a_way_out(tmp_path: Path) -> None:
    assert lacking(tmp_path, 0.0) is None
    said = lacking(tmp_path, 1e9)
    assert said is not None and said.startswith(f"{tmp_path}: ")
    assert "GB are free there, and the tests need 1e+09 GB; make room, or let TMPDIR name a folder" in said


def test_the_place_is_in_memory_where_that_is_large_enough_and_nobody_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, meminfo = Path(tempfile.gettempdir()), tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       99999999 kB\nMemAvailable:    9000000 kB\n")
    monkeypatch.setattr("room.lacking", lambda folder: lacking(folder, 0.0))
    assert place({}, tmp_path, meminfo) == tmp_path
    assert place({"TMPDIR": "/elsewhere"}, tmp_path, meminfo) == disk
    assert place({"PYTEST_DEBUG_TEMPROOT": "/asked"}, tmp_path, meminfo) == Path("/asked")
    assert place({}, tmp_path / "missing", meminfo) == disk
    assert place({}, tmp_path, tmp_path / "missing") == disk, "nobody knows how much memory there is"
    monkeypatch.setattr("os.statvfs", lambda folder: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert place({}, tmp_path, meminfo) == disk
    monkeypatch.undo()
    meminfo.write_text("MemAvailable:    4000000 kB\n")
    assert place({}, tmp_path, meminfo) == disk


def test_the_makefile_asks_before_it_begins() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ntest: ")[2].partition("\n\n")[0]
    assert recipe.index(SCRIPT) < recipe.index("ruff") < recipe.index("pytest")
    done = subprocess.run([sys.executable, SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "") or done.stderr.startswith("error: ")
