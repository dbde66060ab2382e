"""What is recorded of the code: looking at a checkout leaves it as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from miniwin.provenance import _git


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_looking_at_a_checkout_never_writes_its_index(tmp_path: Path) -> None:
    """A plain `git status` refreshes the index under a lock, which stays behind when it is killed meanwhile."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    git("init")
    file, index = tmp_path / "file", tmp_path / ".git" / "index"
    file.write_text("text")
    git("add", "file")
    git("commit", "-m", "first")
    os.utime(file, (1, 1))  # the same bytes, written at another time: the index is out of date
    before = index.read_bytes()
    assert _git(tmp_path, "status", "--porcelain") == ""
    assert index.read_bytes() == before
    git("status")
    assert index.read_bytes() != before, "a plain status writes it"
    file.write_text("other")
    assert _git(tmp_path, "status", "--porcelain") == "M file"
