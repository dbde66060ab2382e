"""Which releases are deprecated or yanked, as the indexes said when they were last read.

Reading an index may need a network; using an entry must not. So whenever an index is read, its marks are kept in the
cache, one file for each index. `pull`, `verify`, `list --remote` and the look-up of an unknown name read indexes.
Whoever finds an entry looks into the cache. A mark belongs to a digest: another entry of the same name and version does
not get it. The marks of an index hold until that index is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from miniwin.files.folders import NoHome, cache_folder
from miniwin.files.hashing import sha256_json
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.zoo.index import INDEX, Release, ReleaseStatus
from miniwin.zoo.locations import Location

Mark = tuple[ReleaseStatus, str]
LONGEST_REASON = 500
_RANK: dict[object, int] = {"deprecated": 1, "yanked": 2}


def remember(location: Location, releases: Iterable[Release]) -> None:
    """Keep the marks of an index in place of its earlier ones. Where the cache cannot be written, nothing is kept."""
    marked = [release for release in releases if release.status != "active"]
    with suppress(OSError, NoHome):
        path = _path(location)
        if not marked and not isinstance(location, Path):
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "index": _shown(location),
            "read": datetime.now(UTC).date().isoformat(),
            "stamp": _stamp(location),
            "marks": {release.digest: [release.status, str(release.reason)[:LONGEST_REASON]] for release in marked},
        }
        write_text(path, json.dumps(about))


def is_remembered(location: Path) -> bool:
    """Whether this index file is the same as when it was last read. Without a cache the answer is yes: reading the file
    would keep nothing."""
    try:
        return _read(_path(location)).get("stamp") == _stamp(location)
    except NoHome:
        return True


def marks() -> dict[str, Mark]:
    """Digest -> yanked or deprecated, and the reason with the index that gives it. Yanked counts over deprecated."""
    found: dict[str, Mark] = {}
    try:
        paths = sorted((cache_folder() / "marks").glob("*.json"))
    except NoHome:
        return found
    for path in paths:
        about = _read(path)
        said = about.get("marks")
        for digest, mark in said.items() if isinstance(said, dict) else ():
            if not isinstance(mark, list) or len(mark) != 2 or mark[0] not in _RANK:
                continue
            status: Literal["deprecated", "yanked"] = mark[0]
            if digest not in found or _RANK[found[digest][0]] < _RANK[status]:
                found[digest] = status, f"{mark[1]} (says {about.get('index')}, read on {about.get('read')})"
    return found


def _path(location: Location) -> Path:
    name = str(_file(location).absolute() if isinstance(location, Path) else location)
    return cache_folder() / "marks" / f"{sha256_json(name)[:32]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        about = read_json(path, names=True)
    except (OSError, JSONProblem):
        return {}
    return about if isinstance(about, dict) else {}


def _stamp(location: Location) -> list[int] | None:
    if not isinstance(location, Path):
        return None
    status = _file(location).stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _file(location: Path) -> Path:
    return location / INDEX if location.is_dir() else location


def _shown(location: Location) -> str:
    """The location without its query, which may be a signature and so a secret."""
    return str(location) if isinstance(location, Path) else urlsplit(location)._replace(query="", fragment="").geturl()
