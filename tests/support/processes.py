"""The command line in a new process with a new Python. `forked` has cheaper processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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


def parent_of(pid: int) -> int:
    """On Linux."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


ONE_AFTER_ANOTHER = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from miniwin.cli import main

answers = []
for line in json.loads(sys.argv[1]):
    sys.argv = ["miniwin", *line]
    code, out, err = 0, io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    answers.append((code, out.getvalue(), err.getvalue()))
loaded = [name for name, module in sys.modules.items() if getattr(module, "__file__", None)]
print(json.dumps([answers, loaded]))
"""


def miniwin_without_torch(*lines: Sequence[str]) -> tuple[list[tuple[int, str, str]], set[str]]:
    """Runs commands that need no torch, in one new process: what each prints, and which modules were loaded."""
    from miniwin import without_torch

    assert all(without_torch.wanted([*line]) for line in lines), "the first of them puts the stand-ins in torch's place"
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    answers, loaded = json.loads(done.stdout)
    return [(code, out, err) for code, out, err in answers], set(loaded)
