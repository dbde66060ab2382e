"""Processes that note what they ask of the network, or that have none."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

EVENTS = (
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"),
    *("socket.sendto", "socket.sendmsg"),
)
# Python imports `sitecustomize` before all else, and hooks for audits cannot be removed.
GUARD = f"""
import os, sys

def note(event, arguments):
    if event in {EVENTS!r}:
        with open(os.environ["SOCKETS"], "a") as file:
            file.write(f"{{event}} {{arguments!r}}\\n")

sys.addaudithook(note)
"""


class Guard:
    """The environment of processes that note what their sockets are asked for."""

    def __init__(self, folder: Path) -> None:
        self._noted = folder / "sockets"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
        self.env = {"PYTHONPATH": str(folder), "SOCKETS": str(self._noted)}

    def seen(self) -> list[str]:
        return self._noted.read_text(encoding="utf-8").splitlines() if self._noted.exists() else []


@cache
def without_network() -> tuple[str, ...]:
    """What to put before a command, so that it has no network at all; nothing where the system does not allow it."""
    unshare = shutil.which("unshare")
    for options in ((), ("--map-root-user",)):
        command = (str(unshare), "--net", *options)
        if unshare and subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0:
            return command
    return ()
