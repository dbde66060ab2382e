"""`miniwin zoo mirror`: all that is needed to pull without a network, in a folder.

Every zoo gets a folder of its own, laid out as one that is published to. Its index keeps its bytes, so that its
signature stays right. Content comes first and the index last. Files that are there with the right hash are not fetched
again, and a download that broke off goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from miniwin.display.formats import decimal_bytes
from miniwin.specs.base import user_path
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import UNNAMED, Offer, Place, Read, choose, fetch, fetch_signature, is_own, places
from miniwin.zoo.mirrors import path_in_mirror
from miniwin.zoo.publishing.folder import FolderTarget
from miniwin.zoo.pull import fetch_file
from miniwin.zoo.references import parse_ref
from miniwin.zoo.rollback import check_newer
from miniwin.zoo.signatures import places as signature_places
from miniwin.zoo.size_limits import check_files


@dataclass
class Mirrored:
    """What was done for one zoo."""

    zoo: str
    folder: Path
    releases: int
    files: int = 0  # fetched
    size: int = 0  # bytes fetched


@dataclass(frozen=True)
class _Zoo:
    place: Place
    read: Read
    signature: bytes | None
    offers: list[Offer]

    @property
    def name(self) -> str:
        return self.place.zoo or UNNAMED


def mirror(folder: Path | str, refs: list[str], said: Callable[[str], None] = lambda line: None) -> list[Mirrored]:
    """Mirror the zoos that are asked, or some of their entries. said: is told of each file that is fetched.

    refs: references; none for all releases, the yanked ones too.

    Raises:
        ZooError: there is no zoo, one cannot be read, none offers an entry, or the disk has no room.
    """
    root = user_path(folder)
    zoos = [_read(place) for place in places() if not is_own(place.location)]
    if not zoos:
        raise ZooError(
            "there is no zoo to mirror: set MINIWIN_ZOO_INDEX, or add one with miniwin zoo source add; the package's "
            "own entries are on every machine that has MiniWin"
        )
    chosen = _chosen(refs, zoos)
    done = []
    for zoo in zoos:
        wanted = [offer for offer in zoo.offers if not refs or (zoo.name, offer.release.ref) in chosen]
        if refs and not wanted:
            continue
        done.append(_mirror(zoo, wanted, root / zoo.name, said))
    return done


def _read(place: Place) -> _Zoo:
    found, index = fetch(place)
    check_newer(place.location, index, found.data)
    offers = [Offer(release, found.location, found.near, place.zoo, place.key) for release in index.releases]
    return _Zoo(place, found, fetch_signature(found), offers)


def _chosen(refs: list[str], zoos: list[_Zoo]) -> set[tuple[str, str]]:
    """Zoo and `name@version` of what the references stand for."""
    every = [offer for zoo in zoos for offer in zoo.offers]
    chosen = set()
    for ref in refs:
        offer = choose(parse_ref(ref), every)
        if offer is None:
            raise ZooError(f"{ref} cannot be mirrored: none of {', '.join(zoo.name for zoo in zoos)} offers it")
        chosen.add((offer.zoo or UNNAMED, offer.release.ref))
    return chosen


def _mirror(zoo: _Zoo, offers: list[Offer], folder: Path, said: Callable[[str], None]) -> Mirrored:
    target = FolderTarget(folder)
    target.check()
    done = Mirrored(zoo.name, folder, len(offers))
    lacking = []
    for offer in offers:
        check_files(offer.release)
        lacking += [
            (offer, file) for file in offer.release.files if not target.holds(path_in_mirror(offer.release, file), file)
        ]
    _check_room(folder, sum(file.size for _, file in lacking))
    for offer, file in lacking:
        said(f"{offer.release.ref}: {file.path} ({decimal_bytes(file.size)})")
        with tempfile.TemporaryDirectory(prefix="miniwin-") as staged:
            fetch_file(offer, file, Path(staged) / file.path)
            target.put(path_in_mirror(offer.release, file), Path(staged) / file.path)
        done.files, done.size = done.files + 1, done.size + file.size
    if zoo.signature is not None:
        target.put(signature_places(zoo.read.data)[0], zoo.signature)
    while (there := target.read_index()) is None or there.data != zoo.read.data:
        if target.replace_index(zoo.read.data, None if there is None else there.tag):
            break
    return done


def _check_room(folder: Path, need: int) -> None:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise ZooError(
            f"{folder}: the mirror needs {decimal_bytes(need)}, and {decimal_bytes(free)} are free; make room, choose "
            "another disk, or mirror some entries: miniwin zoo mirror DIR NAME@VERSION"
        )
