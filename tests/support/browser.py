"""Pages as a browser has them, after their scripts have run; and servers for as long as a block runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 300.0  # seconds; only a hang takes that long, however busy the machine is


def browser() -> str:
    """The path of a browser; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("Chromium is not installed here")
    return found


def page_in_browser(url: str, seconds: float = 10.0) -> str:
    """The elements of a page as HTML, once its scripts have had so many seconds of their own clock."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # No sandbox: root has none, and the page is our own.
        command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--disable-dev-shm-usage", f"--virtual-time-budget={1000 * seconds:.0f}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(command: Sequence[str], url: str, folder: Path) -> Iterator[None]:
    """Run a server until the block ends, and begin once it answers at `url`."""
    with open(folder / "server.log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    assert answer.status == 200
                    break
                log.seek(0)
                assert process.poll() is None and time.monotonic() < deadline, log.read()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            process.wait()
