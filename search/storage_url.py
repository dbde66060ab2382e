"""The URL of a study's storage: what study.json keeps of the URL, and what the storage is opened with.

study.json keeps the whole path of a file: a relative path would name another file for a command started elsewhere. It
does not keep a password, only that there is one (`***`). The password comes from `--storage`, from
$MINIWIN_STORAGE_PASSWORD, or from where the database's own driver looks ($PGPASSWORD, ~/.pgpass).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from miniwin.blocks.messages.passwords import MASK, masked
from miniwin.specs import UserError, user_path

PASSWORD = "MINIWIN_STORAGE_PASSWORD"
EXAMPLES = "sqlite:////data/study.db, postgresql://user@host/db, grpc://host:13000 or redis://host:6379"

_given: dict[str, str] = {}
_SQLITE = re.compile(r"(sqlite(?:\+[a-z0-9]+)?://)(/?)([^?]*)(\?.*)?", re.IGNORECASE)
_PASSWORD = re.compile(r"^([^:/?#]+://[^:/@]*):([^@]*)@")
_PROXY = re.compile(r"grpc://([^:/?#@\[\]]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})/?")
_IN_QUERY = re.compile(r"[?&](password|passwd|pwd)=", re.IGNORECASE)


def split_password(url: str, said: str = "--storage ") -> tuple[str, str | None]:
    """What study.json keeps of a `--storage`, and the password in it. said: before the URL, in messages.

    Raises:
        UserError: if the workers, which are other processes, could not open the storage; or if its password is not
            written as user:password@host.
    """
    if (path := sqlite_path(url)) is not None:
        absolute = Path(os.path.abspath(user_path(path)))
        if not absolute.parent.is_dir():
            raise UserError(f"{said}{url}: there is no folder {absolute.parent}; make it, or choose another place")
        return with_path(url, absolute), None
    if url.lower().startswith("sqlite"):
        raise UserError(
            f"{said}{url}: a study needs a file that all workers see, given by a plain path; expected something "
            "like sqlite:////data/study.db"
        )
    if is_proxy(url):
        proxy_address(url, said)
        return url, None
    found = _PASSWORD.match(url)
    if _IN_QUERY.search(url):
        raise UserError(f"{said}{masked(url)}: write the password as user:password@host, or put it into ${PASSWORD}")
    if found is None:
        return url, None
    if "@" in url[found.end() :].partition("/")[0]:
        raise UserError(f"{said}{masked(url)}: write an @ in a password as %40, or put the password into ${PASSWORD}")
    kept = f"{found.group(1)}:{MASK}@{url[found.end() :]}"
    return kept, None if found.group(2) == MASK else unquote(found.group(2))


def is_proxy(url: str) -> bool:
    """Whether the storage is behind Optuna's gRPC proxy."""
    return url.lower().startswith("grpc:")


def proxy_address(url: str, said: str = "") -> tuple[str, int]:
    """Host and port of a proxy. said: before the URL, in the message of the UserError for another form."""
    found = _PROXY.fullmatch(url)
    if found is None:
        raise UserError(f"{said}{masked(url)}: expected grpc://host:port of Optuna's proxy, which asks for no password")
    return found[1], int(found[2])


def give_password(url: str, password: str | None) -> None:
    """Keep a password that came with a URL for as long as this process lives. url: as `split_password` keeps it."""
    if password:
        _given[without_password(url)] = password


def given_password(url: str | None) -> str | None:
    return None if url is None else _given.get(without_password(url))


def without_password(url: str) -> str:
    return _PASSWORD.sub(r"\1@", url)


def with_password(url: str, password: str | None) -> str:
    """The URL to open: with the password, if there is one and the URL has a user."""
    password = password or os.environ.get(PASSWORD)
    found = _PASSWORD.match(url)
    if found is not None and found.group(2) != MASK:
        return url  # its study was made when passwords were still kept
    if sqlite_path(url) is not None or (found is None and not re.match(r"[^:/?#]+://[^/:@]+@", url)):
        return url
    user, rest = without_password(url).split("@", 1)
    if user.endswith("://") and not password:
        return f"{user}{rest}"
    return f"{user}:{quote(password, safe='')}@{rest}" if password else f"{user}@{rest}"


def sqlite_path(url: str) -> str | None:
    """The path in an SQLite URL, as it is written; None for another kind of database, or one in memory."""
    found = _SQLITE.fullmatch(url)
    if found is None or not found.group(2):
        return None
    path = unquote(found.group(3))
    return None if path in ("", ":memory:") or path.startswith("file:") else path


def with_path(url: str, path: Path) -> str:
    """An SQLite URL with another path."""
    found = _SQLITE.fullmatch(url)
    assert found is not None
    written = path.as_posix().replace("%", "%25").replace("?", "%3F")
    return f"{found.group(1)}/{written}{found.group(4) or ''}"
