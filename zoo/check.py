"""The quick check before an entry is used: every file has the hash that entry.json gives.

Hashing happens once. Size and modification time of every file are then kept in the cache, so that loading a
checked entry costs a few `stat` calls; any change to a file, and any file that comes or goes, makes it be
hashed again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from miniwin.zoo.entry import ENTRY_FILES, METRICS, PROVENANCE, Entry, FileRecord, Manifest
from miniwin.zoo.errors import ZooError
from miniwin.zoo.files import read_object, sha256_file, sha256_json
from miniwin.zoo.lengths import check_metrics, check_provenance
from miniwin.zoo.store import cache_folder


@dataclass(frozen=True)
class Problem:
    """What is wrong, and in which file of the entry."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def check(entry: Entry) -> Entry:
    """Raise unless every file has the hash that entry.json gives; quick when nothing was touched."""
    manifest = entry.require_manifest()
    stamp = cache_folder() / "verified" / f"{sha256_json(str(entry.folder.resolve()))[:32]}.json"
    seen = _fingerprint(entry.folder, manifest)
    with suppress(OSError, ValueError):
        if json.loads(stamp.read_text(encoding="utf-8")) == seen:
            return entry
    problems = file_problems(entry.folder, manifest)
    if problems:
        raise ZooError(
            f"{entry.ref} is damaged and was not loaded: {'; '.join(map(str, problems))} (in "
            f"{entry.folder}); remove the folder and add or pull the entry again"
        )
    with suppress(OSError):  # a cache that cannot be written only costs time
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps(seen), encoding="utf-8")
    return entry


def file_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    """Missing and extra files, wrong sizes, wrong hashes."""
    problems = []
    for name, record in manifest.files.items():
        try:
            if found := _problem(folder / name, record):
                problems.append(Problem(name, found))
        except OSError as error:
            problems.append(Problem(name, f"cannot be read: {error.strerror}"))
    for name in sorted(os.listdir(folder)):
        if name not in ENTRY_FILES:
            problems.append(Problem(name, "does not belong to an entry"))
    return problems


def _problem(path: Path, record: FileRecord) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "the file is missing" if not path.exists() else "is not a plain file"
    if (size := path.stat().st_size) != record.size:
        return f"is {size} bytes long, entry.json says {record.size}"
    if (found := sha256_file(path)) != record.sha256:
        return f"has sha256 {found[:12]}..., entry.json says {record.sha256[:12]}..."
    return None


def written_problems(folder: Path) -> list[Problem]:
    """What the list and the card could not show of metrics and provenance."""
    problems = []
    for name, check_written in ((METRICS, check_metrics), (PROVENANCE, check_provenance)):
        try:
            check_written(read_object(folder / name))
        except ZooError as error:
            problems.append(Problem(name, str(error)))
    return problems


def _fingerprint(folder: Path, manifest: Manifest) -> dict[str, object]:
    files: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        files[path.name] = [status.st_size, status.st_mtime_ns]
    return {"digest": manifest.digest, "files": files}
