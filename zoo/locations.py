"""Sources: where the bytes of a file may come from, each written as one string.

    miniwin-1m/1.0.0/model.yaml                    relative to the index
    https://example.org/zoo/model.yaml             (http only to this machine itself)
    file:///data/zoo/model.yaml                    only in an index that is a local file
    package:entries/miniwin-1m/1.0.0/model.yaml    inside the installed miniwin.zoo; likewise local
    hf:org/repo@<40-hex commit>/model.yaml         a file of a Hugging Face repository at one commit

A location is a `Path` on this machine or a URL. A relative source stays inside the folder of its index. The query of
the index's URL (`index.json?sig=...`) is not carried over: a signature is of one file.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit
from urllib.request import url2pathname

from miniwin.specs.base import user_path
from miniwin.zoo.errors import ZooError

Location = Path | str

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: C: is a Windows drive
_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)@([0-9a-f]{40})/(.+)", re.ASCII)
_REPOSITORY = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)", re.ASCII)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_url(text: str) -> bool:
    return _SCHEME.match(text) is not None


def check_url(url: str) -> str:
    """The URL, if it is https, or http to this machine itself. Raises ZooError for any other."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ZooError(f"{url}: holds a character that a URL writes as % and two digits (a host in its xn-- form)")
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # the look-up of the name will do this, too
    except ValueError as error:
        raise ZooError(f"{url}: is not a URL: {error}") from None
    if "@" in parts.netloc:
        raise ZooError(
            f"{parts.scheme}://{parts.hostname}: a user and a password in a URL are not sent; leave them out"
        )
    if port == 0:
        raise ZooError(f"{url}: is not a URL: port 0")
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return url
    if parts.scheme == "http":
        raise ZooError(f"{url}: http is not safe against changes on the way; use https")
    raise ZooError(f"{url}: scheme {parts.scheme!r} is not one the zoo reads; use https:// or file://")


def index_location(text: str) -> Location:
    """The location of an index or a mirror that the user named: a path, file://, a URL or hf:org/repo.

    Raises:
        ZooError: it is none of these.
    """
    if text.startswith("hf:"):
        match = _REPOSITORY.fullmatch(text)
        if match is None:
            raise ZooError(f"{text}: expected hf:organisation/repository")
        return f"https://huggingface.co/{match[1]}/resolve/main/index.json"
    if text.startswith("file:"):
        return _file_url(text)
    return check_url(text) if is_url(text) else user_path(text)


def source_location(source: str, index: Location) -> Location:
    """The location of a source that the index at `index` names. Raises ZooError where the index may not name it."""
    kind, _, rest = source.partition(":")
    if kind == "package":
        from miniwin.zoo.store import built_in_zoo

        path = _inside(rest, source)
        if not isinstance(index, Path):
            raise ZooError(f"source {source!r}: an index from the network may not name files of this machine")
        return built_in_zoo().parent / path
    if kind == "hf":
        return _hub_url(rest, source)
    if kind == "file":
        if not isinstance(index, Path):
            raise ZooError(f"source {source!r}: an index from the network may not name files of this machine")
        return _file_url(source)
    if is_url(source):
        return check_url(source)
    return beside(index, source)


def beside(index: Location, relative: str) -> Location:
    """The location of a path relative to the folder of the index."""
    path = _inside(relative, relative)
    if isinstance(index, Path):
        return _no_link_out(index.parent, path)
    return urljoin(index, quote(str(path)))


def below(root: Location, relative: str) -> Location:
    """The location of a path relative to a folder, or to the URL of one."""
    path = _inside(relative, relative)
    if isinstance(root, Path):
        return _no_link_out(root, path)
    if urlsplit(root).query or urlsplit(root).fragment:
        raise ZooError(f"{root}: expected the URL of a folder, without ? and #")
    return urljoin(f"{root.rstrip('/')}/", quote(str(path)))


def index_beneath(index: str, name: str) -> str | None:
    """The URL of the index `name` in the folder at the URL `index`; None where `index` names a JSON file."""
    parts = urlsplit(index)
    if parts.path.endswith(".json"):
        return None
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def _no_link_out(root: Path, path: PurePosixPath) -> Path:
    """A path below a folder. Raises ZooError where a link on the way leads out of the folder."""
    found = root / path
    if not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(root)):
        raise ZooError(f"{found}: is a link that leads out of {root}; expected a file of that folder")
    return found


def _inside(text: str, source: str) -> PurePosixPath:
    """A relative path that does not leave its folder. Raises ZooError, which names `source`, for any other."""
    path = PurePosixPath(text)
    plain = text.isprintable() and not any(sign in text for sign in "\\:%")
    if not text or not plain or path.is_absolute() or ".." in path.parts:
        raise ZooError(f"source {source!r}: must be a plain relative path that stays inside its folder")
    return path


def _hub_url(rest: str, source: str) -> str:
    match = _HUB.fullmatch(rest)
    if match is None:
        raise ZooError(f"source {source!r}: expected hf:organisation/repository@<40-hex commit>/path")
    repository, commit, path = match.groups()
    return f"https://huggingface.co/{repository}/resolve/{commit}/{quote(str(_inside(path, source)))}"


def _file_url(url: str) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ZooError(f"{url}: is not a URL: {error}") from None
    path = url2pathname(parts.path) if sys.platform == "win32" else os.fsdecode(unquote_to_bytes(parts.path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path or "\0" in path:
        raise ZooError(f"{url}: expected file:///absolute/path")
    return Path(path)
