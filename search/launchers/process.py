"""A worker as a child process of this one, on the machine where this process is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from miniwin.search.launchers.launcher import Ended, Order
from miniwin.search.study_json import read_about
from miniwin.search.worker import GRACE_SECONDS, MISTAKE
from miniwin.specs.base import UserError
from miniwin.training.signals import ask_to_stop, own_group

POLL_SECONDS = 0.2
MOST_SAID = 8192  # bytes


@dataclass(frozen=True)
class ChildWorker:
    """began: the offset in the log where the worker's own output begins."""

    process: subprocess.Popen[bytes]
    log: Path
    began: int

    def poll(self) -> Ended | None:
        code = self.process.poll()
        return None if code is None else Ended(code, _tail(self.log, self.began))

    def ask_to_stop(self) -> None:
        ask_to_stop(self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start(order: Order, given: Mapping[str, str], group: bool = True) -> ChildWorker:
    """Start a worker, which stops when this process, its parent, is gone. given: more environment variables. group:
    whether it has a group of processes of its own, which no signal to this process reaches."""
    fixed = {"OMP_NUM_THREADS": str(order.threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}
    with open(order.log, "ab") as log:
        began = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            _command(order),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=order.cwd if order.cwd.is_dir() else None,
            env={**os.environ, **order.secrets, **fixed, **given},
            **(own_group() if group else {}),
        )
    return ChildWorker(process, order.log, began)


class HereUntilTheEnd:
    """Runs a worker and waits for it, in a process that a cluster has started for it on one of its machines.

    KeyboardInterrupt in that process stops the worker, with a checkpoint.
    """

    def __init__(self, order: Order, given: Mapping[str, str], group: bool = True) -> None:
        self.order, self.given, self.group = order, dict(given), group
        self.worker: ChildWorker | None = None

    def __call__(self) -> Ended:
        try:
            order = _as_seen_here(self.order)
        except UserError as error:
            return Ended(MISTAKE, f"error: a worker was started on {socket.gethostname()}: {error}")
        try:
            with _user_signals_ignored():
                self.worker = start(order, self.given, self.group)
            while (ended := self.worker.poll()) is None:
                time.sleep(POLL_SECONDS)
            return ended
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop the worker, if it runs, and wait for its checkpoint."""
        if self.worker is None or self.worker.poll() is not None:
            return
        self.worker.ask_to_stop()
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            while self.worker.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:
            self.worker.kill()


def python_path() -> str:
    """PYTHONPATH with the folder that miniwin was imported from: a checkout need not be installed."""
    root = str(Path(sys.modules["miniwin"].__path__[0]).parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))


def _command(order: Order) -> list[str]:
    return [
        *(sys.executable, "-m", "miniwin.search.worker", str(order.folder)),
        *("--worker-id", str(order.number), "--threads", str(order.threads)),
        *("--parent", str(os.getpid()), "--known", order.known),
    ]


def _tail(path: Path, start: int, size: int = MOST_SAID) -> str:
    """The end of a log, from `start` on."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - size))
        return file.read().decode(errors="replace")


def _as_seen_here(order: Order) -> Order:
    """The order, with the study folder that this machine has. UserError if it has none."""
    try:
        if read_about(order.folder)["id"] == order.study:
            return order
        what = "has another study"
    except UserError:
        what = "sees no study"
    if order.url is None:
        raise UserError(
            f"that machine {what} in {order.folder}; either all machines have to see the study folder by the same path "
            "(choose one on a shared file system with --out), or the study has to be in a database (--storage)"
        )
    from miniwin.search.study import find_study

    os.environ.update(order.secrets)  # this process is here for the worker alone
    return replace(order, folder=find_study(order.url))


@contextmanager
def _user_signals_ignored() -> Iterator[None]:
    """A process that is started now ignores SIGUSR1 and SIGUSR2, which a cluster may send to a whole group."""
    numbers = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
