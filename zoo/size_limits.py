"""Limits on the bytes of a release: what each kind of file can hold, what the spec needs, what the disk has room for.

An index says how large a file is, and a server may send that many bytes. So whoever writes an index could fill a disk.
A file that is larger than any entry's is refused before a byte of it is asked for.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from miniwin.display.formats import decimal_bytes
from miniwin.runs import CHAT
from miniwin.specs import UserError, load_model_spec
from miniwin.specs.yaml_file import MOST_BYTES
from miniwin.zoo.entry import (
    CARD,
    LARGEST_MANIFEST,
    MANIFEST,
    METRICS,
    MODEL,
    PROVENANCE,
    REFERENCE,
    SUITE,
    TOKENIZER,
    WEIGHTS,
)
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import Release

LARGEST = {
    CARD: 16 << 20,
    MODEL: MOST_BYTES,
    TOKENIZER: 256 << 20,
    METRICS: 16 << 20,
    PROVENANCE: 16 << 20,
    REFERENCE: 64 << 20,
    SUITE: 16 << 20,
    MANIFEST: LARGEST_MANIFEST,
    **dict.fromkeys(CHAT, 1 << 20),
}
BYTES = 8  # of a parameter: float64 is the widest that is loaded
HEADER = 16 << 20  # of a safetensors file, generously


def check_files(release: Release) -> None:
    """Raise ZooError where a file is larger than one of its kind can be, or than the parameters need."""
    for file in release.files:
        if file.path == WEIGHTS:
            _check_weights(release, release.parameters, "which the index gives")
        elif file.size > LARGEST[file.path]:
            raise ZooError(
                f"{release.ref} was not pulled: {file.path} would be {decimal_bytes(file.size)}; the largest that is "
                f"read is {decimal_bytes(LARGEST[file.path])}"
            )


def check_spec(release: Release, folder: Path) -> None:
    """Raise ZooError where the weights are larger than the spec in `folder` allows."""
    try:
        parameters = load_model_spec(folder / MODEL).parameters()
    except UserError as error:
        raise ZooError(f"{release.ref} was not pulled: {error}") from None
    _check_weights(release, parameters, f"which its {MODEL} describes")


def check_room(release: Release, needed: dict[Path, int]) -> None:
    """Raise ZooError where folders need more bytes than their disks have. Folders of one disk share it."""
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        disks.setdefault(there.stat().st_dev, []).append(folder)
    for folders in disks.values():
        there = next(parent for parent in (folders[0], *folders[0].parents) if parent.exists())
        need, free = sum(needed[folder] for folder in folders), shutil.disk_usage(there).free
        if need > free:
            raise ZooError(
                f"{release.ref} was not pulled: it needs {decimal_bytes(need)} in {' and '.join(map(str, folders))}, "
                f"and {decimal_bytes(free)} are free; make room, or set MINIWIN_ZOO or MINIWIN_CACHE to a folder on "
                "another disk"
            )


def _check_weights(release: Release, parameters: int, given: str) -> None:
    size = next(file.size for file in release.files if file.path == WEIGHTS)
    most = parameters * BYTES + HEADER
    if size > most:
        raise ZooError(
            f"{release.ref} was not pulled: {WEIGHTS} would be {decimal_bytes(size)}; a model of {parameters:,} "
            f"parameters, {given}, has at most {decimal_bytes(most)}"
        )
