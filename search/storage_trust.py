"""Whether a password of this user may be sent to the database of a study: only if this user has named the database.

A study folder may come from somebody else, and its study.json says which database to connect to. So while the
environment holds a password, a database is only opened if this user has named it: with `--storage`, now or earlier on
this machine, or in $MINIWIN_STORAGE_URL. The whole URL has to be the same: its query can name another host or user.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from miniwin.blocks.messages.passwords import masked
from miniwin.files.folders import NoHome, cache_folder
from miniwin.files.writing import write_text
from miniwin.search.storage_url import PASSWORD, is_proxy, without_password
from miniwin.specs import UserError

NAMED = "MINIWIN_STORAGE_URL"
SENT = (PASSWORD, "PGPASSWORD", "MYSQL_PWD")  # we send the first, and drivers send the others, to any server


def remember_named(url: str) -> None:
    """Remember that the user has named this storage. If the cache cannot be written to, nothing is remembered."""
    if not _is_file(url):
        with suppress(OSError, NoHome):
            path = _path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, without_password(url) + "\n")


def check_named(url: str, folder: Path) -> None:
    """UserError if a password would be sent to a storage that the user has not named."""
    sent = [f"${name}" for name in SENT if os.environ.get(name)]
    if not sent or _is_file(url) or is_proxy(url) or _is_named(url):
        return
    raise UserError(
        f"{folder} keeps its trials in {masked(url)}, which you have not named here, and {' and '.join(sent)} would be "
        f"sent to that storage: if you trust it, set {NAMED} to its URL; else unset {' and '.join(sent)}"
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
    """The file that remembers a URL. Each user has files of their own, since a cache may be shared."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return cache_folder() / "storages" / sha256(f"{user} {without_password(url)}".encode()).hexdigest()[:32]
