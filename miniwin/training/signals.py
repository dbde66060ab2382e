"""Ctrl-C and SIGTERM as a request: finish the step, write a checkpoint, then stop.

A second Ctrl-C does not wait: it raises KeyboardInterrupt at once, and the last checkpoint stays. On Windows a process
cannot send SIGTERM to another one; it sends Ctrl-Break to a group of processes instead.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


def stop_signals() -> list[signal.Signals]:
    """The signals that ask to stop."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last on Windows only
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def own_group() -> dict[str, Any]:
    """Options of Popen: Ctrl-C in the terminal reaches this process only, which then asks the new one to stop."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that was started with `own_group` to stop."""
    if sys.platform == "win32":  # terminate() would leave it no time for a checkpoint
        try:
            process.send_signal(signal.CTRL_BREAK_EVENT)
            return
        except OSError:  # there is no console that the two share
            pass
    process.terminate()


_requests = 0


def requests() -> int:
    """How many requests to stop this process has had. One that came while a run was ending anyway did not stop it: who
    would begin another run compares this number with the one before."""
    return _requests


class StopRequest:
    """While the block runs, `received` is the name of the signal that asked to stop, or None.

    Only the main thread can receive signals; in any other thread this does nothing.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        global _requests
        _requests += 1
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
