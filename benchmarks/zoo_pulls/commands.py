"""`miniwin` in a process of its own, with folders of its own and short time-outs."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

SHORT = 5.0  # seconds of a time-out, in place of 30
PAUSE = 0.02  # seconds before another try, in place of 0.5
PATIENCE = 600.0  # seconds; only a hang takes that long
TOLD = "told"
_ENVIRONMENT = threading.Lock()  # a process gets the one of now


@dataclass(frozen=True)
class Home:
    """The folders of one user."""

    folder: Path
    index: str | None = None  # URL

    @property
    def zoo(self) -> Path:
        return self.folder / "zoo"

    @property
    def blobs(self) -> Path:
        return self.folder / "cache" / "blobs"

    def environment(self) -> dict[str, str]:
        places = {f"MINIWIN_{name.upper()}": str(self.folder / name) for name in ("zoo", "cache", "config")}
        index = {} if self.index is None else {"MINIWIN_ZOO_INDEX": self.index}
        return {**places, **index, "TMPDIR": str(self.folder / "tmp"), "OMP_NUM_THREADS": "1"}

    def files(self) -> dict[str, int]:
        """All files of the user, and their bytes."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(TOLD))
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in found}


@dataclass(frozen=True)
class Answer:
    """code: the exit code; None where the process was killed, or died of a traceback."""

    code: int | None
    out: str = ""
    err: str = ""

    def wrong(self) -> Iterator[str]:
        """What no user should see: neither success nor one message."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        if self.code not in (0, 2):
            yield f"exit code {self.code}: {self.err[-300:]}"
        elif "Traceback" in self.err + self.out:
            yield f"a traceback: {self.err[-300:]}"
        elif len(errors) != (self.code == 2) or (self.code == 2 and self.out):
            yield f"exit code {self.code} with {len(errors)} messages, and {self.out!r}"


class Running:
    """A command that was begun. told: a file in the folder, for what it prints. timeout: seconds; None: the usual."""

    def __init__(self, home: Home, *arguments: str, told: str = TOLD, timeout: float | None = None) -> None:
        from forked import start  # of tests/support

        self._told = home.folder / told
        self._told.unlink(missing_ok=True)
        (home.folder / "tmp").mkdir(parents=True, exist_ok=True)
        with _ENVIRONMENT, patch.dict(os.environ, home.environment()):
            for name in ("MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE", "http_proxy", "HTTP_PROXY"):
                os.environ.pop(name, None)
            self.process: Any = start(_command, arguments, self._told, timeout)

    def kill(self) -> bool:
        """Whether it was still there to be killed."""
        self.process.kill()  # SIGKILL: nothing of it runs any more
        self.process.join()
        return bool(self.process.exitcode == -signal.SIGKILL)

    def ends(self) -> Answer:
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            return Answer(None, err=f"it did not end within {PATIENCE:g} seconds")
        if not self._told.exists():  # the exit code may be unknown here: another thread may have asked for it first
            return Answer(None, err=f"the process ended with {self.process.exitcode}")
        return Answer(*json.loads(self._told.read_text(encoding="utf-8")))


def run(home: Home, *arguments: str, timeout: float | None = None) -> Answer:
    return Running(home, *arguments, timeout=timeout).ends()


def _command(arguments: tuple[str, ...], told: Path, timeout: float | None) -> None:
    from tiny import run_cli  # of tests/support

    from miniwin.zoo import download, timeouts

    timeouts.TIMEOUT, download.PAUSE = timeout or timeouts.TIMEOUT, PAUSE
    tempfile.tempdir = None  # the server of the forked processes may have chosen one
    told.write_text(json.dumps(run_cli(*arguments)), encoding="utf-8")
