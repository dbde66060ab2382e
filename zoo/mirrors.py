"""Where the files of a release lie in a mirror, and in a zoo that was mirrored.

`miniwin zoo mirror DIR` writes one folder for each zoo, `DIR/<zoo>/`, with the bytes of its index, the signature, and
every file. `MINIWIN_ZOO_MIRROR` may be DIR, one of these folders, or any folder with `<name>/<version>/<file>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from miniwin.zoo.index import IndexFile, Release, blob_path
from miniwin.zoo.index_query import UNNAMED, Offer
from miniwin.zoo.locations import Location, below, beside


def path_in_mirror(release: Release, file: IndexFile) -> str:
    """Where a mirror keeps a file, relative to the index: where the index says, if that is a usual place."""
    usual = f"{release.name}/{release.version}/{file.path}"
    return usual if usual in file.sources else blob_path(file.sha256)


def in_mirror(mirror: Location, offer: Offer, file: IndexFile) -> Iterator[Location]:
    """The places to look at in a mirror. In a folder these are only the ones that are there, or the first."""
    usual = f"{offer.release.name}/{offer.release.version}/{file.path}"
    zoo = offer.zoo or UNNAMED
    for relative in (usual, f"{zoo}/{usual}", f"{zoo}/{blob_path(file.sha256)}", blob_path(file.sha256)):
        place = below(mirror, relative)
        if relative == usual or not isinstance(place, Path) or place.is_file():
            yield place


def beside_index(offer: Offer, file: IndexFile) -> Iterator[Location]:
    """Where a mirrored zoo keeps a file whose sources are all elsewhere."""
    blob = blob_path(file.sha256)
    if blob in file.sources or path_in_mirror(offer.release, file) != blob:
        return
    place = beside(offer.index, blob)
    if not isinstance(place, Path) or place.is_file():
        yield place
