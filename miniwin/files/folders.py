"""Where runs, caches and the user's zoo are kept, unless the user says otherwise.

A container may have no home folder: no HOME, and a user whose number the system does not know. Caches then go to the
folder of temporary files. A zoo would be lost there, so the user has to name a folder for it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from miniwin.specs.base import UserError, user_path

NO_HOME = "there is no home folder (HOME is not set, and the system does not know this user)"


class NoHome(UserError):
    """There is no home folder, and so no default place for what was asked."""


def home() -> Path:
    """Where runs, searches and the tracking database live: $MINIWIN_HOME, else ./runs."""
    return user_path(os.environ.get("MINIWIN_HOME") or "runs")


def cache_folder() -> Path:
    """`$MINIWIN_CACHE`, else the system's place for a user's caches. Everything in it can be deleted at any time."""
    if chosen := os.environ.get("MINIWIN_CACHE"):
        return user_path(chosen)
    from platformdirs import user_cache_dir

    try:
        found = user_cache_dir("miniwin", appauthor=False)
    except RuntimeError:
        found = "~"
    return _temporary() if found.startswith("~") else Path(found)


def config_folder() -> Path:
    """`$MINIWIN_CONFIG`, else the system's place for a user's configuration.

    Raises:
        NoHome: there is no home folder.
    """
    if chosen := os.environ.get("MINIWIN_CONFIG"):
        return user_path(chosen)
    from platformdirs import user_config_dir

    try:
        found = user_config_dir("miniwin", appauthor=False)
    except RuntimeError:
        found = "~"
    if found.startswith("~"):
        raise NoHome(f"{NO_HOME}: set MINIWIN_CONFIG to a folder")
    return Path(found)


def data_folder(variable: str) -> Path:
    """The system's place for a user's data.

    Raises:
        NoHome: there is no home folder. The message says to set the environment variable `variable`.
    """
    from platformdirs import user_data_dir

    try:
        found = user_data_dir("miniwin")
    except RuntimeError:
        found = "~"
    if found.startswith("~"):
        raise NoHome(f"{NO_HOME}: set {variable} to a folder")
    return Path(found)


def _temporary() -> Path:
    """A folder of temporary files that only this user can write to: a cache must not hold files of other users.

    If the usual folder is not this user's alone, a new one for this process.
    """
    try:
        folder = Path(tempfile.gettempdir()) / (f"miniwin-{os.getuid()}" if hasattr(os, "getuid") else "miniwin")
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        there = folder.lstat()
        mine = not hasattr(os, "getuid") or (there.st_uid == os.getuid() and not there.st_mode & 0o022)
        return folder if stat.S_ISDIR(there.st_mode) and mine else Path(_of_this_process().name)
    except OSError as error:
        raise NoHome(f"{NO_HOME}, nor one for temporary files ({error}): set MINIWIN_CACHE to a folder") from None


@lru_cache(maxsize=1)
def _of_this_process() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="miniwin-")
