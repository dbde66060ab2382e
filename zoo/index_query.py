"""Ask the indexes which releases they offer.

`$MINIWIN_ZOO_INDEX` is the path or the URL of an `index.json`, or of the folder that holds it. The package may have an
index of its own. Further zoos were added by the user (configured.py). An index that cannot be read does not stop the
others. One that has not the signature that its source demands, or that went back (rollback.py), counts as one of these.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.specs import UserError
from miniwin.zoo.configured import sources
from miniwin.zoo.download import offline, read_url
from miniwin.zoo.errors import UnreachableError, ZooError
from miniwin.zoo.index import INDEX, Index, Release, index_bytes, index_path, parse_index
from miniwin.zoo.locations import Location, beside, index_beneath, index_location
from miniwin.zoo.references import Ref
from miniwin.zoo.rollback import check_newer
from miniwin.zoo.signatures import LONGEST, check_signature, key_id
from miniwin.zoo.signatures import places as signature_places
from miniwin.zoo.store import built_in_zoo
from miniwin.zoo.yanks import is_remembered, remember

MAX_INDEX_BYTES = 16_000_000
UNNAMED = "index"  # what the zoo at $MINIWIN_ZOO_INDEX is called, which has no name
BUILT_IN = "built-in"  # and the package's own


@dataclass(frozen=True)
class Offer:
    """A release, and the index that offers it."""

    release: Release
    index: Location
    near: bool = True  # whether the index is on this machine or its network: only then may its sources be
    zoo: str | None = None  # the name of its source, where the user added it
    key: str | None = None  # the public key that signed the index

    @property
    def called(self) -> str:
        """The name of the zoo that offers it."""
        return _called(self.zoo, self.index)

    def origin(self) -> str:
        """Where the release comes from, in words."""
        signed = "not signed" if self.key is None else f"signed by key {key_id(self.key)}"
        return f"{self.release.ref} comes from the zoo {self.zoo} ({shown(self.index)}; {signed})"


class Place(NamedTuple):
    """Where an index is looked for."""

    location: Location
    zoo: str | None = None
    key: str | None = None


class Read(NamedTuple):
    """An index as it was read. location: where the sources of its files start from."""

    location: Location
    data: bytes
    near: bool


@dataclass(frozen=True)
class Asked:
    """What the indexes offer, and what is wrong with those that cannot be read, by location."""

    offers: list[Offer]
    problems: dict[str, str]

    def said(self) -> str:
        """What each index answered, for an entry that none of them offers."""
        if not indexes():
            return "there is no index to ask (MINIWIN_ZOO_INDEX is not set)"
        silent = self.unasked()
        return ", ".join(silent.get(str(one), f"{one} has no such entry") for one in indexes())

    def unasked(self) -> dict[str, str]:
        """Why indexes gave no answer, by location."""
        skipped = [str(one) for one in indexes() if offline() and not isinstance(one, Path)]
        return {one: f"{one} was not asked, as MINIWIN_OFFLINE is set" for one in skipped} | self.problems


def places() -> list[Place]:
    """The indexes to look in: $MINIWIN_ZOO_INDEX, the package's own where it has one, and those of added zoos."""
    found: list[Place] = []
    if chosen := os.environ.get("MINIWIN_ZOO_INDEX"):
        found.append(Place(index_location(chosen)))
    own = index_path(built_in_zoo())
    if own.is_file():
        found.append(Place(own))
    return found + [Place(source.place, source.name, source.key) for source in sources()]


def indexes() -> list[Location]:
    """The locations of all indexes."""
    return [place.location for place in places()]


def ask(zoo: str | None = None) -> Asked:
    """Ask every index. With MINIWIN_OFFLINE set, those that are files, and what the mirror has of the others.

    zoo: the name of the only one to ask.
    """
    offers: list[Offer] = []
    problems: dict[str, str] = {}
    for place in places():
        if zoo not in (None, _called(place.zoo, place.location)):
            continue
        try:
            offers += _asked(place)
        except ZooError as error:
            problems[str(place.location)] = str(error)
    return Asked(offers, problems)


def _asked(place: Place) -> list[Offer]:
    if isinstance(place.location, Path):
        return read_offers(place)
    mirrored = _mirrored(place)
    if offline():
        return [] if mirrored is None else read_offers(place, mirrored)
    try:
        return read_offers(place)
    except UnreachableError:
        if mirrored is None:
            raise
        return read_offers(place, mirrored)


def _mirrored(place: Place) -> Path | None:
    """The copy of an index in the mirror, if the mirror is a folder of this machine, which the user chose."""
    try:
        mirror = index_location(os.environ.get("MINIWIN_ZOO_MIRROR") or os.devnull)
    except UserError:  # said when a file is looked for there
        return None
    copy = mirror / (place.zoo or UNNAMED) / INDEX if isinstance(mirror, Path) else None
    return copy if copy is not None and copy.is_file() else None


def remember_files() -> None:
    """Read the indexes on this disk that have changed, to remember their yanks. This takes no network."""
    with suppress(ZooError, OSError):  # an index that is broken is reported when it is asked
        for place in places():
            location = place.location
            if isinstance(location, Path) and not is_own(location) and not is_remembered(location):
                read_offers(place)


def read_offers(place: Place, copy: Path | None = None) -> list[Offer]:
    """What an index offers, once its signature and its number are right. The yanks in it are remembered (yanks.py).

    copy: where a mirror has it.
    """
    found, index = fetch(place if copy is None else place._replace(location=copy))
    if not is_own(place.location):
        check_newer(place.location, index, found.data)
        remember(place.location, index.releases)
    return [Offer(release, found.location, found.near, place.zoo, place.key) for release in index.releases]


def _called(zoo: str | None, location: Location) -> str:
    return zoo or (BUILT_IN if is_own(location) else UNNAMED)


def is_own(location: Location) -> bool:
    """Whether this is the package's own index, whose yanks are read with the package's entries."""
    return location == index_path(built_in_zoo())


def offers() -> list[Offer]:
    """Everything that the indexes offer. Raises ZooError if one of them cannot be read."""
    asked = ask()
    if asked.problems:
        raise ZooError("; ".join(asked.problems.values()))
    return asked.offers


def fetch(place: Place) -> tuple[Read, Index]:
    """An index, its signature checked where the place demands one. The URL of a place may be that of its folder.

    Raises:
        ZooError: there is no index, or not one with the right signature.
    """
    location = place.location
    if isinstance(location, Path):
        return _checked(_read_file(location), place.key)
    try:
        return _checked(_index_at(location), place.key)
    except UnreachableError:
        raise
    except ZooError as error:
        beneath = index_beneath(location, INDEX)
        if beneath is None:
            raise
        try:
            return _checked(_index_at(beneath), place.key)
        except ZooError as other:
            raise ZooError(f"{error}; {other}; give the URL of an {INDEX}, or of the folder that holds it") from None


def _checked(found: Read, key: str | None) -> tuple[Read, Index]:
    where = str(found.location)
    if key is not None:
        check_signature(found.data, fetch_signature(found), key, where)
    return found, parse_index(found.data, where)


def fetch_signature(found: Read) -> bytes | None:
    """The signature beside an index; None where there is none."""
    for relative in signature_places(found.data):
        where = beside(found.location, relative)
        try:
            return where.read_bytes()[: LONGEST + 1] if isinstance(where, Path) else read_url(where, LONGEST).data
        except UnreachableError:
            raise
        except (OSError, ZooError):
            continue
    return None


def _read_file(location: Path) -> Read:
    path = location / INDEX if location.is_dir() else location
    try:
        return Read(path, index_bytes(path), True)
    except OSError as error:
        hint = f"; miniwin zoo index {location} writes one" if path != location else ""
        raise ZooError(f"the zoo index {path} cannot be read: {error.strerror}{hint}") from error


def _index_at(url: str) -> Read:
    data, near = read_url(url, MAX_INDEX_BYTES)
    return Read(url, data, near)


def shown(location: Location) -> str:
    """The location without its query, which may be a signature and so a secret."""
    return str(location).partition("?")[0]


def warn_of(asked: Asked) -> None:
    """Warn of indexes that could not be read: they may offer something newer."""
    if asked.problems:
        warnings.warn(f"an index was passed over: {'; '.join(asked.problems.values())}", stacklevel=3)


def choose(ref: Ref, offered: list[Offer]) -> Offer | None:
    """The newest release that `ref` stands for, None if there is none. An alias passes over yanked releases.

    A name in an index that MiniWin was started with counts before those of added zoos, so that no added zoo can put
    something else under a known name.

    Raises:
        ZooError: every release that `ref` stands for was yanked, or several added zoos have the name.
    """
    named = [offer for offer in offered if offer.release.name == ref.name and ref.zoo in (None, offer.zoo)]
    own = [offer for offer in named if offer.zoo is None]
    if own or ref.zoo is not None:
        return _newest(ref, own or named)
    zoos = list(dict.fromkeys(offer.zoo for offer in named))
    chosen = [_newest(ref, [offer for offer in named if offer.zoo == zoo]) for zoo in zoos]
    found = [offer for offer in chosen if offer is not None]
    if len({offer.release.digest for offer in found}) > 1:
        rest = str(ref).removeprefix(ref.name)
        which = " or ".join(f"{offer.zoo}/{ref.name}{rest} ({offer.release.ref})" for offer in found)
        raise ZooError(f"{ref} is offered by several zoos, and not as the same entry; say which: {which}")
    return found[0] if found else None


def _newest(ref: Ref, offered: list[Offer]) -> Offer | None:
    found = [offer for offer in offered if ref.matches(offer.release.parsed_version)]
    usable = [offer for offer in found if ref.exact or offer.release.status != "yanked"]
    if found and not usable:
        release = found[-1].release
        why = f"{release.ref}: {escaped_line(str(release.reason))}"
        raise ZooError(f"every version of {ref} was yanked ({why}); name one exactly to pull it")
    return max(usable, key=lambda offer: offer.release.parsed_version, default=None)


def announce(offer: Offer) -> None:
    """Say that an entry comes from a zoo that the user added."""
    if offer.zoo is not None:
        warnings.warn(offer.origin(), stacklevel=3)
