"""A folder as a target: files are staged in it and renamed; the index is compared and replaced under a lock."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from miniwin.files.hashing import sha256_file
from miniwin.files.writing import flush, move, named
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import BLOBS, INDEX, LARGEST_FILE, SIGNATURES, IndexFile, Release, blob_path
from miniwin.zoo.publishing.targets import Stored
from miniwin.zoo.store import LOCKS, STAGING, Store, built_in_zoo

_OURS = {BLOBS, SIGNATURES, LOCKS, STAGING, INDEX}


class FolderTarget:
    """See `Target`. tag: the sha256 of the index."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)
        self._store = Store(root, "user")

    def check(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise ZooError(f"{self.root}: is not a folder; expected a folder to publish to")
        if self.root.resolve() in (built_in_zoo(), built_in_zoo().parent):
            raise ZooError(f"{self.root}: is the package's own zoo, which an upgrade replaces; choose another folder")
        if (self.root / INDEX).is_file():
            self._store.clear_abandoned()  # of a publisher that was killed when all was there
        if not self.root.is_dir() or (self.root / INDEX).is_file() or self._store.entries():
            return
        if strangers := sorted(set(os.listdir(self.root)) - _OURS):
            raise ZooError(
                f"{self.root}: holds other things ({', '.join(strangers[:3])}) and no zoo; choose a new or an empty "
                "folder, or one with an index.json"
            )

    def read_index(self) -> Stored | None:
        data = self.read(INDEX, LARGEST_FILE)
        return None if data is None else Stored(data, hashlib.sha256(data).hexdigest())

    def read(self, path: str, limit: int) -> bytes | None:
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ZooError(f"{self.root / path}: cannot be read: {error.strerror}") from error
        if len(data) > limit:
            raise ZooError(f"{self.root / path}: is larger than {limit} bytes")
        return data

    def source(self, release: Release, file: IndexFile) -> str:
        return blob_path(file.sha256)

    def holds(self, path: str, file: IndexFile) -> bool:
        there = self.root / path
        if there.is_symlink() or not there.is_file() or there.stat().st_size != file.size:
            return False
        return sha256_file(there) == file.sha256

    def put(self, path: str, content: bytes | Path) -> None:
        target = self.root / path
        try:
            with self._store.staging() as staged:
                new = staged / target.name
                if isinstance(content, bytes):
                    new.write_bytes(content)
                else:
                    shutil.copyfile(content, new)
                new.chmod(0o644)
                flush(new)
                target.parent.mkdir(parents=True, exist_ok=True)
                move(new, target)
                flush(target.parent)
        except OSError as error:
            raise named(error, target) from None

    def replace_index(self, data: bytes, tag: object) -> bool:
        target = self.root / INDEX
        try:
            with self._store.staging() as staged:
                new = staged / INDEX
                new.write_bytes(data)
                flush(new)
                with self._store.lock("index", "publish"):
                    there = self.read_index()
                    if (None if there is None else there.tag) != tag:
                        return False
                    move(new, target)
                flush(self.root)
        except OSError as error:
            raise named(error, target) from None
        return True
