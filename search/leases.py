"""A lease says which process works on a trial. Once the lease is dead, the trial is free for another worker.

A lease names the host, the process, and when the process was started, since a process id may be used again. On the same
host a lease is dead once its process is gone. Another host cannot see the process: there a lease is dead once it has
not been renewed for `STALE_SECONDS`. The same holds where the system does not say when a process was started.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_json
from miniwin.machine.processes import is_running, process_start, this_host

RENEW_SECONDS = 15.0
STALE_SECONDS = 120.0


@dataclass(frozen=True)
class Lease:
    host: str
    pid: int
    started: int | None  # of the process, in the kernel's ticks; None where the system does not tell
    worker: str
    heartbeat: float

    @classmethod
    def mine(cls, worker: str) -> Lease:
        return cls(this_host(), os.getpid(), process_start(os.getpid()), worker, time.time())

    def alive(self) -> bool:
        if self.host == this_host() and self.started is not None:
            return process_start(self.pid) == self.started
        fresh = time.time() - self.heartbeat < STALE_SECONDS
        return fresh and (self.host != this_host() or is_running(self.pid))

    def same_holder(self, other: Lease | None) -> bool:
        return other is not None and (self.host, self.pid, self.started) == (
            other.host,
            other.pid,
            other.started,
        )


def read_lease(path: Path) -> Lease | None:
    """The lease in a file. None, if there is none that can be read: then nobody holds it."""
    try:
        lease = Lease(**read_json(path))
        started = 0 if lease.started is None else lease.started
        sound = [isinstance(value, int) for value in (lease.pid, started)] + [isinstance(lease.heartbeat, int | float)]
        return lease if all(sound) else None
    except (OSError, JSONProblem, TypeError):
        return None


def live_lease(path: Path) -> Lease | None:
    lease = read_lease(path)
    return lease if lease is not None and lease.alive() else None


class Holding:
    """Holds a lease while the block runs, and renews it in the background. lost: another process has taken it."""

    def __init__(self, path: Path, lease: Lease) -> None:
        self.path, self.lease = path, lease
        self.lost = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {path.stem}", daemon=True)

    def __enter__(self) -> Holding:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        if self.lease.same_holder(read_lease(self.path)):
            self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            if not self.lease.same_holder(read_lease(self.path)):
                self.lost = True
                return
            self.lease = replace(self.lease, heartbeat=time.time())
            write_lease(self.path, self.lease)


def write_lease(path: Path, lease: Lease) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, asdict(lease))
