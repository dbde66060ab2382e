"""What pulls leave in the cache (blobs.py): downloads to be continued, and what is of no use any more.

A download whose lock a process holds is in use, and stays. Entries are not in the cache but in the zoo; they stay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from miniwin.files.folders import cache_folder
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import remove_tree
from miniwin.zoo.blobs import BLOBS, LOCK, NOTE, PART, beside, forget
from miniwin.zoo.errors import ZooError
from miniwin.zoo.references import Ref

KEPT_SECONDS = 30 * 86_400.0  # a download that nobody continued for so long
_NAME = re.compile(r"[0-9a-f]{64}")
_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class Download:
    """A blob. bytes: how many are there of `size`; ref, file and size are None where nobody knows them. age: seconds
    since the last byte. of_use: whether there is something to continue; otherwise only a lock is left."""

    blob: Path
    bytes: int
    age: float
    in_use: bool
    ref: str | None = None
    file: str | None = None
    size: int | None = None

    @property
    def of_use(self) -> bool:
        return self.bytes > 0


def seconds_of(text: str) -> float:
    """Seconds of an age such as 30d, 12h or 2w. Raises ZooError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ZooError(f"--older-than: got {text!r}; expected a number with s, m, h, d or w, such as 30d")
    return float(match[1]) * _SECONDS[match[2]]


def downloads() -> list[Download]:
    """All that is in the cache, the largest first."""
    found = [_download(blob) for blob in _blobs()]
    return sorted(found, key=lambda one: (-one.bytes, one.blob.name))


def prune(
    *, older_than: float | None = None, keep: Collection[Ref] | None = None, dry_run: bool = False
) -> list[Download]:
    """Remove downloads, and what is of no use. Returns those that were removed, or would be.

    older_than: only downloads of this age in seconds. keep: all but those of these entries. Without either: those that
    nobody continued for 30 days. Never one that is in use.
    """
    chosen = [one for one in downloads() if not one.in_use and _goes(one, older_than, keep)]
    removed = []
    for one in chosen:
        if not dry_run:
            with suppress(Timeout), _held(one.blob):
                _empty(one.blob)
                removed.append(one)
    return chosen if dry_run else removed


def _goes(one: Download, older_than: float | None, keep: Collection[Ref] | None) -> bool:
    if not one.of_use:
        return True
    if keep is not None and one.ref is not None and any(str(ref) == one.ref or _means(one.ref, ref) for ref in keep):
        return False
    if older_than is None:
        older_than = KEPT_SECONDS if keep is None else 0.0
    return one.age >= older_than


def _means(exact: str, ref: Ref) -> bool:
    """Whether `ref`, which may be an alias, can mean the entry `exact`."""
    from miniwin.zoo.references import Version

    name, _, version = exact.partition("@")
    return name == ref.name and ref.matches(Version.parse(version))


def _blobs() -> Iterator[Path]:
    names = set()
    for path in (cache_folder() / BLOBS).glob("*/*"):
        stem = path.name.partition(".")[0]
        if _NAME.fullmatch(stem) and path.parent.name == stem[:2]:
            names.add(path.parent / stem)
    yield from sorted(names)


def _download(blob: Path) -> Download:
    there = [path for path in (blob, beside(blob, PART)) if path.is_file()]
    size, last = 0, 0.0
    for path in there:
        with suppress(FileNotFoundError):  # it was finished in the meantime
            status = path.stat()
            size, last = size + status.st_size, max(last, status.st_mtime)
    about = _noted(blob)
    return Download(blob, size, max(0.0, time.time() - last) if last else 0.0, _is_used(blob), *about)


def _noted(blob: Path) -> tuple[str | None, str | None, int | None]:
    try:
        about = read_json(beside(blob, NOTE))
        ref, file, size = (about[key] for key in ("ref", "file", "size"))
        ref_name = re.compile(r"[a-z0-9-]{1,64}@[0-9]{1,9}(\.[0-9]{1,9}){2}")
        if ref_name.fullmatch(ref) and isinstance(file, str) and isinstance(size, int):
            return ref, file, size
    except (OSError, JSONProblem, TypeError, KeyError):
        pass
    return None, None, None


def _is_used(blob: Path) -> bool:
    if not beside(blob, LOCK).exists():
        return False
    try:
        with FileLock(beside(blob, LOCK), timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def _held(blob: Path) -> Iterator[None]:
    """Hold the lock and remove it in the end. Who waits for it notices that it is gone, and makes another."""
    with FileLock(beside(blob, LOCK), timeout=0):
        yield
        with suppress(OSError):
            beside(blob, LOCK).unlink(missing_ok=True)
    with suppress(OSError):
        blob.parent.rmdir()


def _empty(blob: Path) -> None:
    forget(blob)
    for path in blob.parent.glob(f"{blob.name}.*"):
        if path.is_dir():
            remove_tree(path)
