"""The check before an entry is used: every file has the hash that entry.json gives.

`check` hashes every file once. It keeps a stamp in the cache: size, times and identity (inode, device) of every file.
While the stamp is right the files count as checked. A file that changes, comes or goes has all of them hashed again.

A stamp can be deceived, so nothing is loaded on its word. `opened` hands out the bytes of a file only if these very
bytes have the right hash; that takes a few milliseconds for a million parameters. Only a file of more than LARGE bytes
is read by its path and not hashed again: its stamp has to be right before and after.

Guaranteed: spec, tokenizer and weights up to LARGE bytes are those that entry.json describes, whatever happens to the
files meanwhile. Not guaranteed: that entry.json is the one that somebody published (the digest in an index says that).
Weights beyond LARGE bytes are not safe from a writer who can set the change time of a file, nor from one who writes
into the file while its model is in use: pages are read when they are needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from miniwin.blocks.messages.listing import some
from miniwin.files.folders import cache_folder
from miniwin.files.hashing import sha256_file, sha256_json
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.runs import CHAT
from miniwin.specs import UserError
from miniwin.zoo.card_values import check_metrics, check_provenance
from miniwin.zoo.entry import (
    CARD,
    MANIFEST,
    METRICS,
    PROVENANCE,
    SUITE,
    Entry,
    FileRecord,
    Manifest,
    read_manifest,
)
from miniwin.zoo.errors import ZooError
from miniwin.zoo.json_objects import read_object

LARGE = 1 << 30  # bytes


@dataclass(frozen=True)
class Problem:
    """What is wrong, and in which file of the entry."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def check(entry: Entry) -> Entry:
    """The entry itself. Raises ZooError unless every file has the hash in entry.json. Quick if no file changed."""
    manifest = entry.require_manifest()
    seen = _fingerprint(entry.folder, manifest)
    with suppress(OSError, JSONProblem):
        if read_json(_stamp(entry)) == seen:
            return entry
    problems = file_problems(entry.folder, manifest)
    if problems:
        raise _damaged(entry, some(problems, 4, "; "))
    with suppress(OSError):  # a cache that cannot be written only costs time
        stamp = _stamp(entry)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps(seen), encoding="utf-8")
    return entry


def _stamp(entry: Entry) -> Path:
    return cache_folder() / "verified" / f"{sha256_json(str(entry.folder.resolve()))[:32]}.json"


@contextmanager
def opened(entry: Entry) -> Iterator[Callable[[str], bytes | None]]:
    """Check an entry and open it. Yields a function: name of a file -> bytes, which have the hash in entry.json.

    The function gives None for a file of more than LARGE bytes, which is to be read by its path.

    Raises:
        ZooError: the bytes have another hash, or a file changed while the entry was open.
    """
    manifest = entry.require_manifest()
    by_path = []
    confirm = watched(entry)

    def read(name: str) -> bytes | None:
        record = manifest.files[name]
        if record.size > LARGE:
            by_path.append(name)
            return None
        with (entry.folder / name).open("rb") as file:
            raw = file.read(record.size + 1)
        if hashlib.sha256(raw).hexdigest() != record.sha256:
            raise _damaged(entry, f"{name}: has not the sha256 that entry.json gives")
        return raw

    yield read
    if by_path:
        confirm()


def watched(entry: Entry) -> Callable[[], None]:
    """Check an entry. Returns a function that raises ZooError if a file of the entry has changed since."""
    manifest = entry.require_manifest()
    before = _fingerprint(entry.folder, manifest)
    check(entry)

    def confirm() -> None:
        if _fingerprint(entry.folder, manifest) != before:
            raise _damaged(entry, "its files changed while they were read")

    return confirm


def _damaged(entry: Entry, problem: str) -> ZooError:
    return ZooError(
        f"{entry.ref} is damaged and was not loaded: {problem} (in {entry.folder}); remove the folder and add or pull "
        "the entry again"
    )


def file_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    """Missing and extra files, wrong sizes, wrong hashes."""
    problems = []
    for name, record in manifest.files.items():
        try:
            if found := _problem(folder / name, record):
                problems.append(Problem(name, found))
        except OSError as error:
            problems.append(Problem(name, f"cannot be read: {error.strerror}"))
    for name in sorted(os.listdir(folder)):
        if name != MANIFEST and name not in manifest.files:
            problems.append(Problem(name, "does not belong to an entry"))
    return problems


def _problem(path: Path, record: FileRecord) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "the file is missing" if not path.exists() else "is not a plain file"
    if (size := path.stat().st_size) != record.size:
        return f"is {size} bytes long, entry.json says {record.size}"
    if (found := sha256_file(path)) != record.sha256:
        return f"has sha256 {found[:12]}..., entry.json says {record.sha256[:12]}..."
    return None


def written_problems(folder: Path) -> list[Problem]:
    """Values of metrics.json and provenance.json that the list and the card could not show; a damaged suite.json or
    chat format; markup in the card."""
    problems = [Problem(CARD, found) for found in _card_problems(folder)]
    for name, check_written in ((METRICS, check_metrics), (PROVENANCE, check_provenance)):
        try:
            check_written(read_object(folder / name))
        except ZooError as error:
            problems.append(Problem(name, str(error)))
    if (folder / SUITE).is_file():
        from miniwin.evaluation.suite.result import SuiteResult

        try:
            SuiteResult.read(folder / SUITE)
        except UserError as error:
            problems.append(Problem(SUITE, str(error)))
    if (folder / CHAT[0]).is_file():
        from miniwin.chat.format import read_chat_format

        try:
            read_chat_format(folder)
        except UserError as error:
            of_tokens = str(error).startswith(str(folder / CHAT[1]))
            problems.append(Problem(CHAT[of_tokens], str(error)))
    return problems


def _card_problems(folder: Path) -> list[str]:
    from miniwin.zoo.card_check import card_problems

    if not (folder / CARD).is_file():
        return []  # which is said by the hashes
    return card_problems((folder / CARD).read_bytes(), read_manifest(folder).licence)


def _fingerprint(folder: Path, manifest: Manifest) -> dict[str, object]:
    files: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        # A program can set back the time of the last modification, but not the change time: the kernel keeps it.
        times = status.st_mtime_ns, status.st_ctime_ns
        files[path.name] = [status.st_size, *times, status.st_ino, status.st_dev]
    return {"digest": manifest.digest, "files": files}
