"""Which releases are deprecated or yanked, as the indexes said when they were last read.

Reading an index may need a network, and using an entry must not. So whoever reads an index (`pull`, `verify`,
`list --remote`, the look-up of a name that is not here) leaves its marks in the cache, one file an index, and whoever
finds an entry looks there. A mark is of a digest: another entry that happens to have the same name and version is not
meant. The marks of an index hold until it is read again, also while another one is asked.
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
    """Keep what an index says, in place of what it said before. A cache that cannot be written to remembers nothing."""
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
    """Whether the index in this file is the one that was read last. Where nothing can be remembered, there is no need
    to read it."""
    try:
        return _read(_path(location)).get("stamp") == _stamp(location)
    except NoHome:
        return True


def marks() -> dict[str, Mark]:
    """By digest of an entry: yanked or deprecated, and the reason, with the index that gives it."""
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
    """Without what may be a secret: a query may be a signature."""
    return str(location) if isinstance(location, Path) else urlsplit(location)._replace(query="", fragment="").geturl()
