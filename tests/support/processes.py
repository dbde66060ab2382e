"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from paths import ROOT


def miniwin(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *options, "-m", "miniwin", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
