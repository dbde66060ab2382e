"""Whether there is room for what the tests write: `python tests/support/room.py`, before they begin.

A whole run needs about 1 GB at a time, mostly for a real model. What passes is removed at once.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

NEEDED = 2.0  # GB


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
    if found := lacking(Path(tempfile.gettempdir())):
        sys.exit(f"error: {found}")
