"""What a pull would fetch, from where, and how many bytes: `miniwin zoo pull --dry-run`. No file of the entry is asked
for, and nothing is written into the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from miniwin.files.folders import cache_folder
from miniwin.zoo.blobs import there
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import Offer, shown
from miniwin.zoo.pull import locations, offered, refuse_newer
from miniwin.zoo.size_limits import check_files, check_room
from miniwin.zoo.store import stores


@dataclass(frozen=True)
class Fetch:
    """One file: where it is looked for first, its bytes, and how many of them come over the network."""

    file: str
    source: str
    size: int
    from_network: int


@dataclass(frozen=True)
class Plan:
    """folder: where the entry will be. here: whether it is there already."""

    ref: str
    index: str
    folder: Path
    here: bool
    fetches: tuple[Fetch, ...]

    @property
    def from_network(self) -> int:
        return sum(fetch.from_network for fetch in self.fetches)


def plan(ref: str, *, zoo: Path | str | None = None) -> Plan:
    """What `pull` would do. Raises ZooError where it would be refused before the first byte."""
    offer = offered(ref)
    release = offer.release
    refuse_newer(release)
    check_files(release)
    version = release.parsed_version
    for store in stores(zoo):
        if store.folder(release.name, version).exists():
            return Plan(release.ref, shown(offer.index), store.folder(release.name, version), True, ())
    store = stores(zoo, to_write=True)[0]
    fetches = tuple(_fetch(offer, place) for place in range(len(release.files)))
    needed = {store.root: release.size, cache_folder(): sum(fetch.from_network for fetch in fetches)}
    check_room(release, needed)
    return Plan(release.ref, shown(offer.index), store.folder(release.name, version), False, fetches)


def _fetch(offer: Offer, place: int) -> Fetch:
    file = offer.release.files[place]
    problems: list[str] = []
    for where, _ in locations(offer, file, problems):
        if isinstance(where, Path):
            if where.is_file():
                return Fetch(file.path, str(where), file.size, 0)
            problems.append(f"{where}: No such file or directory")
            continue
        return Fetch(file.path, shown(where), file.size, max(0, file.size - there(file)))
    raise ZooError(
        f"{offer.release.ref} cannot be pulled: no source of {file.path} can be asked: {'; '.join(problems)}"
    )
