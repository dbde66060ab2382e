"""Workers that are killed, and what a run of theirs came to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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
