"""Cards, metrics and other small files of releases that are not on this machine.

What came is kept in the cache under its sha256, `cards/<first two digits>/<sha256>`, so that the next search asks
nobody.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path

from miniwin.files.folders import cache_folder
from miniwin.files.writing import copy_file
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import IndexFile
from miniwin.zoo.index_query import Offer
from miniwin.zoo.pull import fetch_file
from miniwin.zoo.size_limits import check_files

KEPT = "cards"


def read_offered(offer: Offer, file: IndexFile) -> bytes:
    """The bytes of a small file of a release, from the cache, the mirror or a source. Raises ZooError."""
    check_files(offer.release)
    kept = cache_folder() / KEPT / file.sha256[:2] / file.sha256
    with suppress(OSError), kept.open("rb") as cached:
        raw = cached.read(file.size + 1)
        if hashlib.sha256(raw).hexdigest() == file.sha256:
            return raw
    try:
        with tempfile.TemporaryDirectory(prefix="miniwin-") as staged:
            here = Path(staged) / file.path
            fetch_file(offer, file, here)
            with suppress(OSError):  # a cache that cannot be written only costs time
                kept.parent.mkdir(parents=True, exist_ok=True)
                copy_file(here, kept)
            return here.read_bytes()
    except OSError as error:
        raise ZooError(f"{offer.release.ref}: {file.path} could not be fetched: {error}") from error
