"""Downloads in the cache: `blobs/<first two digits>/<sha256>`, with what belongs to each beside it.

<sha256>         a file that came whole, until its entry is in the zoo
<sha256>.part    one that is still to be continued
<sha256>.json    what it is: {"ref": ..., "file": ..., "size": ...}
<sha256>.work/   what pooch writes to; of no use to anybody else
<sha256>.lock    held while any of these is used
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from miniwin.files.folders import cache_folder
from miniwin.files.writing import remove_tree
from miniwin.zoo.index import IndexFile, Release

BLOBS = "blobs"
PART, NOTE, WORK, LOCK = ".part", ".json", ".work", ".lock"


def blob_of(file: IndexFile) -> Path:
    return cache_folder() / BLOBS / file.sha256[:2] / file.sha256


def beside(blob: Path, suffix: str) -> Path:
    """What belongs to a blob."""
    return blob.with_name(blob.name + suffix)


@contextmanager
def locked(blob: Path) -> Iterator[Path]:
    """The blob, used by nobody else while the block runs."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(beside(blob, LOCK)):
        yield blob


def there(file: IndexFile) -> int:
    """Bytes of a file that are in the cache."""
    blob = blob_of(file)
    return sum(path.stat().st_size for path in (blob, beside(blob, PART)) if path.is_file())


def note(blob: Path, release: Release, file: IndexFile) -> None:
    """Say whose blob it is, for `zoo cache list`. The caller holds its lock."""
    about = {"ref": release.ref, "file": file.path, "size": file.size}
    beside(blob, NOTE).write_text(json.dumps(about), encoding="utf-8")


def forget(blob: Path) -> None:
    """Remove a blob and all beside it but the lock, which the caller holds."""
    for path in (blob, *(beside(blob, suffix) for suffix in (PART, NOTE))):
        path.unlink(missing_ok=True)
    remove_tree(beside(blob, WORK))
