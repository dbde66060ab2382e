"""Whether a password of this user may be sent to a study's database: only where he has named that database himself.

A study folder may come from somebody else, and its study.json says where to connect to. So while the environment holds
a password, a database is opened that was named with `--storage`, now or earlier by this user on this machine, or in
$MINIWIN_STORAGE_URL. The whole URL has to be the same: its query can name another host or user.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from miniwin.blocks.messages.passwords import masked
from miniwin.files.folders import NoHome, cache_folder
from miniwin.files.writing import write_text
from miniwin.search.storage_url import PASSWORD, without_password
from miniwin.specs import UserError

NAMED = "MINIWIN_STORAGE_URL"
SENT = (PASSWORD, "PGPASSWORD", "MYSQL_PWD")  # by us, and by the drivers to any server


def remember_named(url: str) -> None:
    """The user has named this storage. A cache that cannot be written to remembers nothing."""
    if not _is_file(url):
        with suppress(OSError, NoHome):
            path = _path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, without_password(url) + "\n")


def check_named(url: str, folder: Path) -> None:
    """Refuse the storage of a study folder where a password would be sent to it that was not meant for it."""
    sent = [f"${name}" for name in SENT if os.environ.get(name)]
    if not sent or _is_file(url) or _is_named(url):
        return
    raise UserError(
        f"{folder} keeps its trials in {masked(url)}, which you have not named here, and {' and '.join(sent)} would be "
        f"sent there: if that is meant, set {NAMED} to that URL; else unset {' and '.join(sent)}"
    )


def _is_file(url: str) -> bool:
    return url.lower().startswith("sqlite")


def _is_named(url: str) -> bool:
    if without_password(os.environ.get(NAMED, "")) == without_password(url):
        return True
    try:
        path = _path(url)
        return path.is_file() and (not hasattr(os, "getuid") or path.stat().st_uid == os.getuid())
    except (OSError, NoHome):
        return False


def _path(url: str) -> Path:
    """One for each user: a cache may be shared, and what others have named is not what this one has."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return cache_folder() / "storages" / sha256(f"{user} {without_password(url)}".encode()).hexdigest()[:32]
