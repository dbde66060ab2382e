"""Writing files that a crash, a full disk or another process cannot tear.

A file is written aside, flushed and renamed, so that the file under its own name is whole at any moment. If the system
refuses, that is an `Unwritable`, with one message for the user, and the old file stays.

Windows differs in three ways. A file that somebody has open, if only to look for viruses, cannot be replaced for a
moment. Only a file opened for writing can be flushed, and no folder can. Text would get other line ends.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.machine.processes import is_running
from miniwin.specs.base import UserError

OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
PATIENCE_SECONDS = 5.0  # on Windows, for a file that is open elsewhere
BEGINNING = 1 << 18  # bytes of a file that are looked through for our mark
LEFTOVER_SECONDS = 3600.0  # without growth: no living process pauses so long while it writes a temporary file


class Unwritable(UserError, OSError):
    """The system does not let a file be written: the disk is full, the place is read-only, or another reason."""

    def __init__(self, path: Path, error: OSError, message: str | None = None) -> None:
        reason = error.strerror or str(error)
        room = "make room there, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        super().__init__(message or f"{path}: could not be written ({reason}); {room}choose another place")
        self.errno, self.strerror = error.errno, error.strerror

    def __str__(self) -> str:
        return escaped(str(self.args[0]))  # OSError would print its number


def named(error: OSError, path: Path) -> OSError:
    """The error in a form to show. The error of a full disk may name no file, or both files of a copy; then it becomes
    an `Unwritable` of `path`."""
    unclear = not isinstance(error, Unwritable) and (error.filename is None or error.filename2 is not None)
    return Unwritable(path, error) if unclear and error.errno in OF_WRITING else error


@contextmanager
def said_if_unwritable(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into an `Unwritable` of `path`."""
    try:
        yield
    except Unwritable:
        raise
    except OSError as error:
        raise Unwritable(path, error) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. When the block ends without an error, that file is flushed and replaces `path`.

    Raises:
        Unwritable: the system refused. The file at `path` has not changed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with said_if_unwritable(path):
            _remove_leftovers(path)
            yield temporary
            flush(temporary)
            move(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    flush(path.parent)


def _remove_leftovers(path: Path) -> None:
    """Remove what a process left beside `path` that was killed while it wrote."""
    name = re.compile(rf"\.{re.escape(path.name)}\.([0-9]{{1,10}})\.tmp")
    with suppress(OSError), os.scandir(path.parent) as found:
        for one in found:
            match = name.fullmatch(one.name)
            if match and time.time() - one.stat().st_mtime > LEFTOVER_SECONDS and not is_running(int(match[1])):
                os.unlink(one.path)


def move(source: Path, target: Path) -> None:
    """Give a file or a folder another name, in one step. A file that has that name already is replaced."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def flush(path: Path) -> None:
    """fsync of a file; or of a folder, if the system allows it, so that a new name survives a power cut."""
    folder = path.is_dir()
    if folder and sys.platform == "win32":
        return
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        os.fsync(descriptor)
    except OSError:
        if not folder:  # some network file systems have no fsync of a folder
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder as far as it can be. Windows does not remove a file that may only be read."""
    if sys.platform == "win32":
        for path in folder.rglob("*"):
            with suppress(OSError):
                path.chmod(stat.S_IWRITE | stat.S_IREAD)
    shutil.rmtree(folder, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Raise UserError if no file can be written at `path`. Called before the work whose result goes there."""
    folder = path.parent
    # Not Path.is_dir: it raises where a folder on the way may not be read.
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or (os.path.exists(path) and not path.is_file()):
        raise UserError(
            f"{path}: cannot write there; expected a file name in a folder that exists and can be written to"
        )


def check_ours(path: Path, mark: str, what: str) -> None:
    """Raise UserError if `path` is a file that lacks `mark`, which ours have: it is not ours to replace.

    An empty file may be replaced. what: what ours are, for the message.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    if beginning and mark.encode() not in beginning:
        raise UserError(f"{path} is there already, and is not {what} of miniwin; move it, or choose another file")


def copy_file(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`, as a whole.

    Raises:
        Unwritable: the system refused it.
    """
    with said_if_unwritable(target), replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically: UTF-8, with the same line ends everywhere.

    Bytes of a file's name that are not UTF-8 become `\\udcff` and the like, which JSON reads back.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_flushed(path: Path, text: str) -> None:
    """Write a text file and flush it. For a folder that nobody reads yet, since it gets its name once it is whole.

    Line ends are the same everywhere, since the hash of a file must not depend on the machine.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically. Numbers that JSON has no name for (NaN, infinity) become null."""
    write_text(path, json.dumps(finite(data), indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """The same data with null in place of the numbers that JSON has no name for."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
