"""Workers that are killed, and what a run of theirs came to."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from forked import Command, kill

from miniwin.search.leases import Lease, live, read_lease

PATIENCE = 900.0  # seconds; only a hang takes that long, however busy the machine is


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} seconds for {what}"
        time.sleep(0.02)


def kill_worker(pid: int) -> None:
    with suppress(ProcessLookupError):  # it ended in the meantime, which is a moment as good as any
        os.kill(pid, signal.SIGKILL)


def weights(trial_run: Path) -> bytes:
    return (trial_run / "model.safetensors").read_bytes()


def at_work(study: Path) -> list[Lease]:
    return [
        lease for path in sorted((study / "leases").glob("*.json")) if (lease := live(read_lease(path))) is not None
    ]


def kill_and_complete(
    command: list[str], study: Path, victims: Callable[[], list[Lease]], times: int, longest: float, draw: random.Random
) -> None:
    """Kill one of the victims so many times, each at most `longest` seconds after one is seen, then the search itself.
    The same command has to complete it."""
    parent = Command(*command, told=study.parent / "told.json")
    for _ in range(times):
        wait_for(lambda: victims() or not parent.running(), "a worker to begin")
        time.sleep(draw.uniform(0, longest))
        there = victims()
        for lease in draw.sample(there, min(1, len(there))):
            kill_worker(lease.pid)
            wait_for(lambda lease=lease: not lease.alive(), "the killed worker to be gone")
    kill(parent.process)
    wait_for(lambda: not at_work(study), "the workers to notice")
    code, _, errors = Command(*command, told=study.parent / "told-2.json").ends()
    assert code == 0, errors
