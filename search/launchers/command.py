"""The command line and the environment of a worker, on the machine where it is to run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from miniwin.search.launchers.launcher import Order

MOST_SAID = 8192  # bytes


def command(order: Order) -> list[str]:
    """The worker stops when this process, its parent, is gone."""
    return [
        *(sys.executable, "-m", "miniwin.search.worker", str(order.folder)),
        *("--worker-id", str(order.number), "--threads", str(order.threads)),
        *("--parent", str(os.getpid()), "--known", order.known),
    ]


def environment(order: Order) -> dict[str, str]:
    """This process's own, and what the worker needs beside it."""
    fixed = {"OMP_NUM_THREADS": str(order.threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}
    return {**os.environ, **order.secrets, **fixed}


def python_path() -> str:
    """PYTHONPATH with the folder that miniwin was imported from: a checkout need not be installed."""
    root = str(Path(sys.modules["miniwin"].__path__[0]).parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))


def tail(path: Path, start: int, size: int = MOST_SAID) -> str:
    """The end of a log, from `start` on."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - size))
        return file.read().decode(errors="replace")
