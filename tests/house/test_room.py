"""`make test` says at once when there is no room for what the tests write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paths import ROOT
from room import lacking

SCRIPT = "tests/support/room.py"


def test_too_little_room_is_said_with_numbers_and_a_way_out(tmp_path: Path) -> None:
    assert lacking(tmp_path, 0.0) is None
    said = lacking(tmp_path, 1e9)
    assert said is not None and said.startswith(f"{tmp_path}: ")
    assert "GB are free there, and the tests need 1e+09 GB; make room, or let TMPDIR name a folder" in said


def test_the_makefile_asks_before_it_begins() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ntest: ")[2].partition("\n\n")[0]
    assert recipe.index(SCRIPT) < recipe.index("ruff") < recipe.index("pytest")
    done = subprocess.run([sys.executable, SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "") or done.stderr.startswith("error: ")
