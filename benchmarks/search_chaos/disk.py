"""A disk that can be filled up without harm to anybody."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 64 << 20  # bytes, a few times what the search needs
MOST_OF_A_FILE = 6_000  # bytes: less than a checkpoint


class Disk:
    """A small disk at a folder. how: in words."""

    how = f"a tmpfs of {SIZE >> 20} MiB, filled to the last byte"
    file_limit: int | None = None  # for the command that shall find it full

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def full(self) -> Iterator[None]:
        """No byte can be written while the block runs."""
        filler = self.folder / "filler"
        try:
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0" * (1 << 16)):
                    pass
            yield
        finally:
            filler.unlink()


class LimitedFiles(Disk):
    """In place of a disk, where none may be mounted: the command may write no large file."""

    how = f"no file of the command may be larger than {MOST_OF_A_FILE:,} bytes"
    file_limit = MOST_OF_A_FILE

    @contextmanager
    def full(self) -> Iterator[None]:
        yield


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk of its own at a folder, where the system allows it."""
    folder.mkdir()
    mounted = (
        hasattr(os, "geteuid")
        and os.geteuid() == 0
        and _ran("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "chaos", folder)
    )
    try:
        yield (Disk if mounted else LimitedFiles)(folder)
    finally:
        if mounted:
            _ran("umount", "--lazy", folder)


def _ran(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False
