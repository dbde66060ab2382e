"""Ask the indexes which releases they offer.

`$MINIWIN_ZOO_INDEX` is the path or the URL of an `index.json`, or of the folder that holds it. The package may have an
index of its own. An index that cannot be read does not stop the others.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.zoo.download import offline, read_url
from miniwin.zoo.errors import UnreachableError, ZooError
from miniwin.zoo.index import INDEX, Release, index_path, parse_index, read_index_file
from miniwin.zoo.locations import Location, index_beneath, index_location
from miniwin.zoo.references import Ref
from miniwin.zoo.store import built_in_zoo
from miniwin.zoo.yanks import is_remembered, remember

MAX_INDEX_BYTES = 16_000_000


@dataclass(frozen=True)
class Offer:
    """A release, and the index that offers it."""

    release: Release
    index: Location
    near: bool = True  # whether the index is on this machine or its network: only then may its sources be


@dataclass(frozen=True)
class Asked:
    """What the indexes offer, and what is wrong with those that cannot be read, by location."""

    offers: list[Offer]
    problems: dict[str, str]

    def said(self) -> str:
        """What each index answered, for an entry that none of them offers."""
        if not indexes():
            return "there is no index to ask (MINIWIN_ZOO_INDEX is not set)"
        told = []
        for location in indexes():
            skipped = offline() and not isinstance(location, Path)
            what = "was not asked, as MINIWIN_OFFLINE is set" if skipped else "has no such entry"
            told.append(self.problems.get(str(location), f"{location} {what}"))
        return ", ".join(told)


def indexes() -> list[Location]:
    """The indexes to look in: $MINIWIN_ZOO_INDEX, then the package's own where it has one."""
    found: list[Location] = []
    if chosen := os.environ.get("MINIWIN_ZOO_INDEX"):
        found.append(index_location(chosen))
    own = index_path(built_in_zoo())
    if own.is_file():
        found.append(own)
    return found


def ask() -> Asked:
    """Ask every index; with MINIWIN_OFFLINE set, only those that are files."""
    offers: list[Offer] = []
    problems: dict[str, str] = {}
    for location in indexes():
        try:
            if isinstance(location, Path) or not offline():
                offers += _read(location)
        except ZooError as error:
            problems[str(location)] = str(error)
    return Asked(offers, problems)


def remember_files() -> None:
    """Read the indexes on this disk that have changed, to remember their yanks. This takes no network."""
    with suppress(ZooError, OSError):  # an index that is broken is reported when it is asked
        for location in indexes():
            if isinstance(location, Path) and not _is_own(location) and not is_remembered(location):
                _read(location)


def _read(location: Location) -> list[Offer]:
    """What an index offers. The yanks in it are remembered (yanks.py)."""
    offers = _read_file(location) if isinstance(location, Path) else _read_url(location)
    if not _is_own(location):
        remember(location, [offer.release for offer in offers])
    return offers


def _is_own(location: Location) -> bool:
    """Whether this is the package's own index, whose yanks are read with the package's entries."""
    return location == index_path(built_in_zoo())


def offers() -> list[Offer]:
    """Everything that the indexes offer. Raises ZooError if one of them cannot be read."""
    asked = ask()
    if asked.problems:
        raise ZooError("; ".join(asked.problems.values()))
    return asked.offers


def _read_file(location: Path) -> list[Offer]:
    path = location / INDEX if location.is_dir() else location
    try:
        index = read_index_file(path)
    except OSError as error:
        hint = f"; miniwin zoo index {location} writes one" if path != location else ""
        raise ZooError(f"the zoo index {path} cannot be read: {error.strerror}{hint}") from error
    return [Offer(release, path) for release in index.releases]


def _read_url(location: str) -> list[Offer]:
    """What the index at a URL offers. The URL may be that of its folder."""
    try:
        return _parse(location)
    except UnreachableError:
        raise
    except ZooError as error:
        beneath = index_beneath(location, INDEX)
        if beneath is None:
            raise
        try:
            return _parse(beneath)
        except ZooError as other:
            raise ZooError(f"{error}; {other}; give the URL of an {INDEX}, or of the folder that holds it") from None


def _parse(url: str) -> list[Offer]:
    data, near = read_url(url, MAX_INDEX_BYTES)
    return [Offer(release, url, near) for release in parse_index(data, url).releases]


def warn_of(asked: Asked) -> None:
    """Warn of indexes that could not be read: they may offer something newer."""
    if asked.problems:
        warnings.warn(f"an index was passed over: {'; '.join(asked.problems.values())}", stacklevel=3)


def choose(ref: Ref, offered: list[Offer]) -> Offer | None:
    """The newest release that `ref` stands for, None if there is none. An alias passes over yanked releases.

    Raises:
        ZooError: every release that `ref` stands for was yanked.
    """
    found = [o for o in offered if o.release.name == ref.name and ref.matches(o.release.parsed_version)]
    usable = [offer for offer in found if ref.exact or offer.release.status != "yanked"]
    if found and not usable:
        release = found[-1].release
        why = f"{release.ref}: {escaped_line(str(release.reason))}"
        raise ZooError(f"every version of {ref} was yanked ({why}); name one exactly to pull it")
    return max(usable, key=lambda offer: offer.release.parsed_version, default=None)
