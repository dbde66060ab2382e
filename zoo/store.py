"""Zoos on disk: `<root>/<name>/<version>/`, written atomically and never changed afterwards.

An entry is staged in `<root>/.staging/`, flushed, and renamed to its place in one step, under a lock per name. So a
killed process leaves no entry or a whole one. The next writer removes what the process staged: its lock, which the
operating system released, shows that it is dead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from miniwin.files.folders import NoHome, data_folder
from miniwin.files.writing import flush, move, remove_tree
from miniwin.specs.base import user_path
from miniwin.zoo.entry import ENTRY_FILES, Entry, open_entry, wrong_files
from miniwin.zoo.errors import ZooError
from miniwin.zoo.references import Version, check_name, is_name

STAGING = ".staging"
LOCKS = ".locks"


def built_in_zoo() -> Path:
    """The entries that ship in the package."""
    return Path(__file__).resolve().parent / "entries"


def user_zoo() -> Path:
    """Where the user's entries are written: $MINIWIN_ZOO, or the platform's folder for application data."""
    chosen = os.environ.get("MINIWIN_ZOO")
    return user_path(chosen) if chosen else data_folder("MINIWIN_ZOO") / "zoo"


class Store:
    """One zoo folder. Reading never writes, so a read-only zoo (the package's) works."""

    def __init__(self, root: Path, source: str) -> None:
        self.root = root
        self.source = source

    def names(self) -> list[str]:
        return sorted(name for name in _listdir(self.root) if is_name(name) and (self.root / name).is_dir())

    def versions(self, name: str) -> list[Version]:
        found = []
        for text in _listdir(self.root / name):
            with suppress(ZooError):
                version = Version.parse(text)
                if self.folder(name, version).is_dir():
                    found.append(version)
        return sorted(found)

    def folder(self, name: str, version: Version) -> Path:
        return self.root / name / str(version)

    def entry(self, name: str, version: Version) -> Entry:
        return open_entry(self.folder(name, version), self.source, name, str(version))

    def entries(self) -> list[Entry]:
        return [self.entry(name, version) for name in self.names() for version in self.versions(name)]

    def latest(self, name: str) -> Entry | None:
        versions = self.versions(name)
        return self.entry(name, versions[-1]) if versions else None

    @contextmanager
    def lock(self, name: str, purpose: str = "write") -> Iterator[None]:
        """Lock `name` while a version is chosen and put in place. Each `purpose` has a lock of its own."""
        with FileLock(_folder(self.root / LOCKS) / f"{check_name(name)}.{purpose}.lock"):
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the zoo's file system, removed at the end unless it was committed."""
        base = _folder(self.root / STAGING)
        folder = base / uuid.uuid4().hex
        lock = FileLock(base / f"{folder.name}.lock")
        with FileLock(_folder(self.root / LOCKS) / ".staging.lock"):  # no cleaning between our lock and our folder
            self._remove_abandoned(base)
            lock.acquire()
            folder.mkdir()
        try:
            yield folder
        finally:
            remove_tree(folder)
            lock.release()
            _unlink(base / f"{folder.name}.lock")

    def clear_abandoned(self) -> None:
        """Remove what dead writers staged: for those who find that nothing is to be written."""
        base = self.root / STAGING
        if base.is_dir() and any(base.iterdir()):
            with FileLock(_folder(self.root / LOCKS) / ".staging.lock"):
                self._remove_abandoned(base)

    def commit(self, staged: Path, name: str, version: Version) -> Entry:
        """Put a finished folder in its place, never over another. The caller holds `lock(name)`."""
        target = self.folder(name, version)
        self.refuse_existing(name, version)
        names = {path.name for path in staged.iterdir()}
        assert not wrong_files(names, ENTRY_FILES), f"staged {sorted(names)}"
        for path in staged.iterdir():
            flush(path)
            path.chmod(0o444)  # immutable: a slip of an editor should fail
        flush(staged)
        _folder(target.parent)
        move(staged, target)
        flush(target.parent)
        flush(self.root)
        return self.entry(name, version)

    def refuse_existing(self, name: str, version: Version) -> None:
        """Raise ZooError if the version exists."""
        target = self.folder(name, version)
        if target.exists():
            newest = self.versions(name)[-1] if self.versions(name) else version
            raise ZooError(
                f"{name}@{version} exists already in {target}, and a version never changes once written; "
                f"leave the version out to get the next one, or choose one above {newest}"
            )

    def _remove_abandoned(self, base: Path) -> None:
        """Remove what dead writers staged."""
        for lock_path in base.glob("*.lock"):
            lock = FileLock(lock_path, timeout=0)
            try:
                with lock:
                    remove_tree(lock_path.with_suffix(""))
                    _unlink(lock_path)
            except Timeout:
                continue  # its owner lives
        for folder in base.iterdir():
            if folder.is_dir() and not folder.with_name(f"{folder.name}.lock").exists():
                remove_tree(folder)


def stores(zoo: Path | str | None = None, *, to_write: bool = False) -> list[Store]:
    """The zoos to look in, in order: the one given, or else the user's and then the package's.

    Without a home folder the user has no zoo. to_write: the first zoo will be written to, so then NoHome is raised.
    """
    if zoo is not None:
        root = user_path(zoo)
        return [Store(root, "built-in" if root.resolve() == built_in_zoo() else "user")]
    built_in = Store(built_in_zoo(), "built-in")
    try:
        return [Store(user_zoo(), "user"), built_in]
    except NoHome:
        if to_write:
            raise
        return [built_in]


def _listdir(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(
            f"the zoo cannot write to {path}: {error.strerror}; set MINIWIN_ZOO to a folder that you may write to"
        ) from error
    return path


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
