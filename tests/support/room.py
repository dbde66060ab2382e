"""Where the tests write, and whether there is room: `python tests/support/room.py`, before they begin.

A whole run needs about 1 GB at a time, mostly for a real model. What passes is removed at once.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

NEEDED = 2.0  # GB
MEMORY = Path("/dev/shm")
SPARE = 8.0  # GB of memory: for NEEDED, and for the processes of the tests
CHOICES = ("PYTEST_DEBUG_TEMPROOT", "TMPDIR", "TEMP", "TMP")


def place(
    environment: Mapping[str, str] = os.environ, memory: Path = MEMORY, meminfo: Path = Path("/proc/meminfo")
) -> Path:
    """The folder for what tests write: in memory if that is large enough and the user has not chosen another.

    Tests write and remove tens of thousands of small files, and on a disk that takes much of the time of a run, as each
    waits for its journal. A file system that starts no programs is no place for tests that write some.
    """
    if any(environment.get(name) for name in CHOICES) or not os.access(memory, os.W_OK):
        return Path(environment.get(CHOICES[0]) or tempfile.gettempdir())
    known = re.search(r"^MemAvailable: *(\d+) kB", meminfo.read_text() if meminfo.is_file() else "", re.MULTILINE)
    spare = int(known.group(1)) * 1024 / 1e9 if known else 0.0
    runs = not os.statvfs(memory).f_flag & getattr(os, "ST_NOEXEC", 0)
    return memory if runs and spare >= SPARE and lacking(memory) is None else Path(tempfile.gettempdir())


def lacking(folder: Path, needed: float = NEEDED) -> str | None:
    """Where there is how much less than `needed` GB, and what to do; None if there is room."""
    free = shutil.disk_usage(folder).free / 1e9
    if free >= needed:
        return None
    return (
        f"{folder}: {free:.1f} GB are free there, and the tests need {needed:g} GB; make room, or let TMPDIR name a "
        "folder on another disk"
    )


if __name__ == "__main__":
    if found := lacking(place()):
        sys.exit(f"error: {found}")
