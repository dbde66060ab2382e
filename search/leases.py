"""A lease says which process works on a trial. Once the lease is dead, the trial is free for another worker.

A lease names the host, the process, and when the process was started, since a process id may be used again. On the same
host a lease is dead once its process is gone. Another host cannot see the process: there a lease is dead once it has
not been renewed for `STALE_SECONDS`. The same holds where the system does not say when a process was started.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

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


class Leased(Protocol):
    """What has a lease: see entries.py."""

    def lease(self) -> Lease | None: ...

    def hold(self, lease: Lease) -> None: ...

    def let_go(self) -> None: ...


class LeaseFile:
    """A lease in a file of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lease(self) -> Lease | None:
        return read_lease(self.path)

    def hold(self, lease: Lease) -> None:
        write_lease(self.path, lease)

    def let_go(self) -> None:
        self.path.unlink(missing_ok=True)


def lease_of(data: Any) -> Lease | None:
    """The lease that a file or an attribute says. None, if it says none: then nobody holds it."""
    try:
        lease = Lease(**data)
    except TypeError:
        return None
    started = 0 if lease.started is None else lease.started
    sound = [isinstance(value, int) for value in (lease.pid, started)] + [isinstance(lease.heartbeat, int | float)]
    return lease if all(sound) else None


def read_lease(path: Path) -> Lease | None:
    """The lease in a file. None, if there is none that can be read."""
    try:
        return lease_of(read_json(path))
    except (OSError, JSONProblem):
        return None


def live(lease: Lease | None) -> Lease | None:
    """The lease, if its holder lives."""
    return lease if lease is not None and lease.alive() else None


class Holding:
    """Holds a lease while the block runs, and renews it in the background. lost: another process has taken it, and
    `at_loss` has been called."""

    def __init__(self, place: Leased, lease: Lease, at_loss: Callable[[], object] = lambda: None) -> None:
        self.place, self.lease, self.at_loss = place, lease, at_loss
        self.lost = False
        self.given_up = False  # the lease has been given up, or nobody asks for it any more
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Holding:
        self._thread.start()
        return self

    def end(self) -> None:
        """Renew no more."""
        self._done.set()
        self._thread.join()

    def __exit__(self, *error: object) -> None:
        self.end()
        if not self.given_up and self.lease.same_holder(self.place.lease()):
            self.place.let_go()

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            try:
                if not self.lease.same_holder(self.place.lease()):
                    self.lost = True
                    self.at_loss()
                    return
                self.lease = replace(self.lease, heartbeat=time.time())
                self.place.hold(self.lease)
            except Exception:  # a place that is away is the business of whoever works with it; here it is tried again
                continue


def write_lease(path: Path, lease: Lease) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, asdict(lease))
