"""What each index said when it was last read, so that it cannot go back.

Whoever stands between a reader and a zoo could show an old index: from before a yank or a better release. Or one with
other bytes under a version that is known. A signature does not help: the old index has one. So the serial number, the
id of the zoo and the digest of every release are kept in the user's configuration. An index is refused that has a
smaller number, that belongs to another zoo, or that changed or dropped a release: then an alias would go back without
a yank. (The Update Framework calls the first of these a rollback attack.)

Nothing here says how old the newest index is: a zoo that stands still cannot be told from one that is withheld.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from miniwin.files.folders import NoHome, config_folder
from miniwin.files.hashing import sha256_json
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import INDEX, LARGEST_FILE, Index
from miniwin.zoo.locations import Location


def check_newer(location: Location, index: Index, data: bytes) -> None:
    """Compare an index with what was seen, and keep what it says. location: as configured. data: its bytes.

    Where nothing can be kept, nothing is compared.

    Raises:
        ZooError: the index went back.
    """
    try:
        path = _path(location)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            before = _read(path)
            said = {
                "location": str(location),
                "zoo": index.zoo,
                "serial": index.serial,
                "sha256": hashlib.sha256(data).hexdigest(),
                "releases": {release.ref: release.digest for release in index.releases},
            }
            if all(before.get(key) == value for key, value in said.items()):
                return
            _compare(location, before, said)
            write_text(path, json.dumps({**said, "read": datetime.now(UTC).date().isoformat()}))
    except (OSError, NoHome):  # UserErrors that are not about writing pass
        return


def seen(location: Location) -> dict[str, str]:
    """The digests of the releases that an index had when it was last read, by `name@version`."""
    with suppress(NoHome):
        releases = _read(_path(location)).get("releases")
        return releases if isinstance(releases, dict) else {}
    return {}


def forget(location: Location) -> bool:
    """Forget what an index said; whether anything was known of it."""
    try:
        _path(location).unlink()
    except FileNotFoundError:
        return False
    return True


def _compare(location: Location, before: dict[str, Any], said: dict[str, Any]) -> None:
    way_out = f"If whoever runs the zoo says that this is right: miniwin zoo source accept {location}"

    def refuse(what: str) -> ZooError:
        return ZooError(f"{location}: {what} (read on {before.get('read')}); nothing of it is used. {way_out}")

    if before.get("zoo") is not None and said["zoo"] != before["zoo"]:
        raise refuse("this is the index of another zoo than before")
    number, was = said["serial"], before.get("serial")
    if isinstance(was, int) and isinstance(number, int):
        if number < was:
            raise refuse(f"the index is older than one that was read before: its number is {number}, and was {was}")
        if number == was and said["sha256"] != before.get("sha256"):
            raise refuse(f"there is another index with the same number {number} than before")
    known = before.get("releases")
    for ref, digest in known.items() if isinstance(known, dict) else ():
        now = said["releases"].get(ref)
        if now is None:
            raise refuse(f"{ref} is not listed any more, without having been yanked, so its aliases would go back")
        if now != digest:
            raise refuse(
                f"{ref} has digest {now[:12]}..., and had {str(digest)[:12]}...; a version never changes once published"
            )


def _path(location: Location) -> Path:
    if isinstance(location, Path):
        location = str((location / INDEX if location.is_dir() else location).absolute())
    return config_folder() / "seen" / f"{sha256_json(location)[:32]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        about = read_json(path, LARGEST_FILE, names=True)
    except (OSError, JSONProblem):
        return {}
    return about if isinstance(about, dict) else {}
