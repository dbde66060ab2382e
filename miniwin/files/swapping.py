"""Replacing a whole folder, so that whoever looks finds the old one or the new one, and never a mixture.

Linux exchanges two names in one step. Elsewhere the old folder is renamed before the new one gets its name; a process
that is killed between the two leaves the old folder under a hidden name beside it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from miniwin.files.writing import LEFTOVER_SECONDS, flush, move, remove_tree
from miniwin.machine.processes import is_running

_HERE = -100  # AT_FDCWD of Linux: paths are as usual
_EXCHANGE = 2  # RENAME_EXCHANGE
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)  # the kernel or the file system cannot exchange


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into. When the block ends without an error, it takes the place of `target`, which may be
    there or not; what was there is removed.

    Raises:
        OSError: the system refused. The folder at `target` has not changed.
    """
    _remove_leftovers(target)
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        remove_tree(staged)  # of another process that had this number
        staged.mkdir()
        yield staged
        for path in (*staged.rglob("*"), staged):
            flush(path)
        _put(staged, target)
        flush(target.parent)
    finally:
        remove_tree(staged)  # which is the old folder, if all went well


def _put(staged: Path, target: Path) -> None:
    if not target.exists():
        move(staged, target)
    elif not _exchange(staged, target):
        old = staged.with_name(f"{staged.name}.old.tmp")
        move(target, old)
        try:
            move(staged, target)
        except OSError:
            move(old, target)
            raise
        remove_tree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that cannot be done."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _remove_leftovers(target: Path) -> None:
    """Remove what processes left beside `target` that were killed."""
    name = re.compile(rf"\.{re.escape(target.name)}\.([0-9]{{1,10}})\.tmp(\.old\.tmp)?")
    with suppress(OSError), os.scandir(target.parent) as found:
        for one in found:
            match = name.fullmatch(one.name)
            if match and time.time() - one.stat().st_mtime > LEFTOVER_SECONDS and not is_running(int(match[1])):
                remove_tree(Path(one.path))
