"""Pulling an entry that an index offers into the user's zoo.

Every file is downloaded into the cache, where a broken download is resumed (download.py), or copied from this machine.
`$MINIWIN_ZOO_MIRROR` is tried first, then the sources that the index gives. Every hash is checked. The entry is staged,
and renamed into the zoo in one step, as `add` does.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.files.folders import cache_folder
from miniwin.files.hashing import sha256_file
from miniwin.files.writing import flush, move, named, remove_tree
from miniwin.specs import UserError, load_model_spec
from miniwin.version import __version__
from miniwin.zoo.blobs import PART, WORK, beside, blob_of, forget, locked, note, there
from miniwin.zoo.download import ResumingDownloader
from miniwin.zoo.entry import MANIFEST, MODEL, WEIGHTS, Entry, Manifest, read_manifest
from miniwin.zoo.errors import UnreachableError, ZooError
from miniwin.zoo.index import IndexFile, Release
from miniwin.zoo.index_query import Offer, announce, ask, choose, warn_of
from miniwin.zoo.integrity import file_problems, written_problems
from miniwin.zoo.locations import Location, index_location, source_location
from miniwin.zoo.mirrors import beside_index, in_mirror
from miniwin.zoo.references import parse_ref
from miniwin.zoo.size_limits import check_files, check_room, check_spec
from miniwin.zoo.store import stores

FIRST = (MANIFEST, MODEL)  # small, and they say how large the others may be
MOST_SOURCES = 8  # of a file: each may take its time to fail


def pull(ref: str, *, zoo: Path | str | None = None, progress: bool = True) -> Entry:
    """Fetch the entry that `ref` stands for in the indexes, unless that version is in the zoo already.

    zoo: the folder to write to, by default the user's zoo. progress: show a bar on a terminal.

    Raises:
        ZooError: no index offers the entry, no source has it, or the entry is not what the index says.
    """
    return install(offered(ref), zoo=zoo, progress=progress)


def offered(ref: str) -> Offer:
    """What the indexes offer for a reference. Raises ZooError where that is nothing."""
    parsed, asked = parse_ref(ref), ask()
    offered = asked.offers
    offer = choose(parsed, offered)
    if offer is None:
        found = sorted(o.release.parsed_version for o in offered if o.release.name == parsed.name)
        there = [str(version) for version in found]
        names = sorted({o.release.name for o in offered})
        what = f"{parsed.name} {some(there, 20)}" if there else some(names, 20) or "nothing"
        near = None if there else nearest(parsed.name, names)
        what += f"; did you mean {near}?" if near else ""
        raise ZooError(f"{parsed} cannot be pulled: {asked.said()}; what is offered: {what}")
    warn_of(asked)
    return offer


def install(offer: Offer, *, zoo: Path | str | None = None, progress: bool = True) -> Entry:
    """Fetch one release, check it and put it into the zoo. Arguments and errors as for `pull`."""
    release = offer.release
    refuse_newer(release)
    announce(offer)
    store = stores(zoo, to_write=True)[0]
    version = release.parsed_version
    try:
        with store.lock(release.name, "pull"):  # a second process waits here, and finds the work done
            for known in stores(zoo):
                if known.folder(release.name, version).exists():
                    entry = _same(known.entry(release.name, version), offer)
                    # Both are left by a pull that was killed once the entry was there.
                    store.clear_abandoned()
                    for file in release.files:
                        if there(file):
                            _forget(file)
                    return _marked(entry, release)
            check_files(release)
            check_room(release, {store.root: release.size, cache_folder(): _to_download(offer)})
            with store.staging() as staged, _Bar(release, progress) as bar:
                silent: set[str] = set()
                files = sorted(release.files, key=lambda file: file.path not in FIRST)
                for place, file in enumerate(files):
                    if place == len(FIRST):  # the two first files are checked before more is fetched
                        _check_manifest(staged, offer)
                        check_spec(release, staged)
                    _fetch(offer, file, staged / file.path, bar, silent)
                _check_staged(staged, offer)
                with store.lock(release.name):
                    entry = store.commit(staged, release.name, version)
            for file in release.files:  # the cache served to resume; the entry holds the bytes now
                _forget(file)
            return _marked(entry, release)
    except OSError as error:
        raise ZooError(f"{release.ref} was not pulled: {named(error, store.root)}") from error


def refuse_newer(release: Release) -> None:
    needed = tuple(map(int, release.requires_miniwin.removeprefix(">=").split(".")))
    mine = tuple(int(part) for part in __version__.split(".")[:3] if part.isdigit())
    if mine < needed:
        raise ZooError(
            f"{release.ref} needs miniwin {release.requires_miniwin}, this is {__version__}; upgrade miniwin"
        )


def _marked(entry: Entry, release: Release) -> Entry:
    return replace(entry, status=release.status, reason=release.reason)


def _same(entry: Entry, offer: Offer) -> Entry:
    if entry.digest != offer.release.digest:
        raise ZooError(
            f"{entry.ref} in {entry.folder} is not what {offer.index} calls {entry.ref} (digest "
            f"{entry.digest[:12]}... against {offer.release.digest[:12]}...); rename one of the two"
        )
    return entry


def _check_manifest(staged: Path, offer: Offer) -> Manifest:
    """The entry.json that was fetched. Raises ZooError where it contradicts the index."""
    release = offer.release
    manifest = read_manifest(staged)
    if (manifest.name, manifest.version, manifest.digest) != (release.name, release.version, release.digest):
        raise ZooError(
            f"{offer.index}: {release.ref} is listed with digest {release.digest[:12]}..., "
            f"its entry.json is {manifest.name}@{manifest.version} with digest {manifest.digest[:12]}..."
        )
    return manifest


def _check_staged(staged: Path, offer: Offer) -> None:
    """Raise ZooError where a staged file is not what entry.json says, or a card could not show its values."""
    problems = file_problems(staged, _check_manifest(staged, offer)) or written_problems(staged)
    if not problems:
        from miniwin.zoo.weight_check import weight_problems  # needs torch

        problems = weight_problems(staged / WEIGHTS, load_model_spec(staged / MODEL))
    if problems:
        raise ZooError(f"{offer.release.ref} was not pulled: {some(problems, 4, '; ')}")


def _to_download(offer: Offer) -> int:
    """Bytes that the cache will take: of the files that are neither on this machine nor in the cache."""
    total = 0
    for file in offer.release.files:
        where = next(locations(offer, file, []), None)
        if where is not None and not isinstance(where[0], Path):
            total += max(0, file.size - there(file))
    return total


def _forget(file: IndexFile) -> None:
    with locked(blob_of(file)) as blob:
        forget(blob)


def _fetch(offer: Offer, file: IndexFile, target: Path, bar: _Bar, silent: set[str]) -> None:
    """Put the file at `target`, from the cache, the mirror or the first source with the right bytes.

    silent: hosts that gave no answer. They are asked last, since each may take minutes.
    """
    release = offer.release
    problems: list[str] = []
    unreachable = 0
    places = list(locations(offer, file, problems))
    while places:
        places.sort(key=lambda place: _host(place[0]) in silent)  # a mirror may be several of them
        where, near = places.pop(0)
        try:
            if isinstance(where, Path):
                _copy(where, file, target)
            else:
                with locked(blob_of(file)) as blob:
                    note(blob, release, file)
                    _download(where, file, blob, near, bar.counter())
                    shutil.copyfile(blob, target)
            bar.done(file.size)
            return
        except UnreachableError as error:
            silent.add(_host(where))
            unreachable += 1
            problems.append(str(error))
        except ZooError as error:
            problems.append(str(error))
    kind = UnreachableError if unreachable == len(problems) > 0 else ZooError
    raise kind(f"{release.ref} was not pulled: no source gave {file.path}: {'; '.join(problems)}")


def fetch_file(offer: Offer, file: IndexFile, target: Path) -> None:
    """One file of a release, its hash checked, at `target`: for a mirror. Raises ZooError."""
    _fetch(offer, file, target, _Bar(offer.release, False), set())
    _forget(file)


def locations(offer: Offer, file: IndexFile, problems: list[str]) -> Iterator[tuple[Location, bool]]:
    """Where to look for a file, and whether that may be on this machine or its network: a mirror always may.

    problems: takes the reasons why a place is left out.
    """
    if mirror := os.environ.get("MINIWIN_ZOO_MIRROR"):
        try:
            for where in in_mirror(index_location(mirror), offer, file):
                yield where, True
        except UserError as error:
            problems.append(f"MINIWIN_ZOO_MIRROR: {error}")
    for source in file.sources[:MOST_SOURCES]:
        try:
            yield source_location(source, offer.index), offer.near
        except ZooError as error:
            problems.append(str(error))
    if len(file.sources) > MOST_SOURCES:
        problems.append(f"only the first {MOST_SOURCES} of {len(file.sources)} sources are tried")
    for where in beside_index(offer, file):
        yield where, offer.near


def _host(where: Location) -> str:
    return "" if isinstance(where, Path) else urlsplit(where).netloc


def _copy(source: Path, file: IndexFile, target: Path) -> None:
    try:
        if not source.is_file():
            raise ZooError(f"{source}: {'is not a file' if source.exists() else 'No such file or directory'}")
        if (size := source.stat().st_size) != file.size:
            raise ZooError(f"{source}: is {size} bytes long, expected {file.size}")
        shutil.copyfile(source, target)
    except OSError as error:
        if (full := named(error, target)) is not error:
            raise full from None
        raise ZooError(f"{source}: {error.strerror}") from error
    if (found := sha256_file(target)) != file.sha256:
        target.unlink()
        raise ZooError(f"{source}: has sha256 {found}, expected {file.sha256}")


def _download(url: str, file: IndexFile, blob: Path, near: bool, on_bytes: Callable[[int], None]) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # pooch announces every file on stderr
    if blob.is_file() and sha256_file(blob) == file.sha256:
        return
    part, work = beside(blob, PART), beside(blob, WORK)
    downloader = ResumingDownloader(part, size=file.size, sha256=file.sha256, near=near, on_bytes=on_bytes)
    remove_tree(work)  # of a process that was killed: pooch leaves files of its own
    try:
        known = f"sha256:{file.sha256}"
        move(Path(pooch.retrieve(url, known_hash=known, fname=blob.name, path=work, downloader=downloader)), blob)
    finally:
        remove_tree(work)
    flush(blob.parent)


class _Bar:
    """Bytes of the whole entry on stderr, on a terminal only."""

    def __init__(self, release: Release, enabled: bool) -> None:
        self._before = 0
        self._progress = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn()
            rate = TransferSpeedColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns, *rate, console=Console(stderr=True))
            self._task = self._progress.add_task(escaped_line(release.ref), total=release.size)

    def __enter__(self) -> _Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def counter(self) -> Callable[[int], None]:
        before = self._before
        return lambda received: self._show(before + received)

    def done(self, size: int) -> None:
        self._before += size
        self._show(self._before)

    def _show(self, completed: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=completed)
