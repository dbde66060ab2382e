"""What a target of publishing can do. It is written to in one order only: content, signature, index."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from miniwin.zoo.index import IndexFile, Release


class Stored(NamedTuple):
    """An index as it is stored. tag: what it is known by to the target, for `replace_index`."""

    data: bytes
    tag: object


class Target(Protocol):
    name: str  # as messages show it

    def check(self) -> None:
        """Raise ZooError where nothing should be published."""

    def read_index(self) -> Stored | None:
        """The index; None where there is none yet."""

    def read(self, path: str, limit: int) -> bytes | None:
        """A small file, None where it does not exist. limit: bytes; what is larger is a ZooError."""

    def source(self, release: Release, file: IndexFile) -> str:
        """Where a file goes, relative to the index."""

    def holds(self, path: str, file: IndexFile) -> bool:
        """Whether the file is there as a whole."""

    def put(self, path: str, content: bytes | Path) -> None:
        """Store a file whole or not at all. A file that is there is the same: its path names its content."""

    def replace_index(self, data: bytes, tag: object) -> bool:
        """Replace the index that `read_index` gave with `tag`, None if there was none. False: another one is there."""
