"""Pulling an entry that an index offers into the user's zoo.

Every file is fetched into the cache (resumable, hash checked), from `$MINIWIN_ZOO_MIRROR` first when it is
set, then from the sources that the index gives; the entry is staged and renamed into the zoo in one step,
as `add` does.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

import miniwin
from miniwin.blocks.visible import visible_line
from miniwin.zoo.check import file_problems, written_problems
from miniwin.zoo.entry import Entry, read_manifest
from miniwin.zoo.errors import ZooError
from miniwin.zoo.files import fsync_path, sha256_file
from miniwin.zoo.index import Index, IndexFile, Release, index_path, parse_index
from miniwin.zoo.sources import Location, below, index_location, source_location
from miniwin.zoo.store import built_in_zoo, cache_folder, stores
from miniwin.zoo.transport import ResumingDownloader, offline, read_url
from miniwin.zoo.version import Ref, parse_ref

MAX_INDEX_BYTES = 16_000_000


@dataclass(frozen=True)
class Offer:
    """A release, and the index that offers it."""

    release: Release
    index: Location


def indexes() -> list[Location]:
    """The indexes to look in: $MINIWIN_ZOO_INDEX, then the package's own where it has one."""
    found: list[Location] = []
    if chosen := os.environ.get("MINIWIN_ZOO_INDEX"):
        found.append(index_location(chosen))
    own = index_path(built_in_zoo())
    if own.is_file():
        found.append(own)
    return found


def read_index(location: Location) -> Index:
    if isinstance(location, Path):
        try:
            return parse_index(location.read_bytes(), str(location))
        except OSError as error:
            raise ZooError(f"the zoo index {location} cannot be read: {error.strerror}") from error
    return parse_index(read_url(location, MAX_INDEX_BYTES), location)


def offers() -> list[Offer]:
    """Everything that the indexes offer; without a network (MINIWIN_OFFLINE), those that are files."""
    asked = [location for location in indexes() if isinstance(location, Path) or not offline()]
    return [Offer(release, location) for location in asked for release in read_index(location).releases]


def pull(ref: str, *, zoo: Path | str | None = None, progress: bool = True) -> Entry:
    """Fetch the entry that `ref` stands for in the indexes, unless that version is in the zoo already."""
    parsed, offered = parse_ref(ref), offers()
    offer = choose(parsed, offered)
    if offer is None:
        there = sorted(o.release.version for o in offered if o.release.name == parsed.name)
        names = sorted({o.release.name for o in offered})
        what = f"{parsed.name} {', '.join(there)}" if there else ", ".join(names) or "nothing"
        raise ZooError(f"{parsed} cannot be pulled: {asked()}; what is offered: {what}")
    return install(offer, zoo=zoo, progress=progress)


def asked() -> str:
    """What came of asking the indexes for something that none of them has."""
    if not indexes():
        return "there is no index to ask (MINIWIN_ZOO_INDEX is not set)"
    told = []
    for location in indexes():
        skipped = offline() and not isinstance(location, Path)
        what = "was not asked, as MINIWIN_OFFLINE is set" if skipped else "has no such entry"
        told.append(f"{location} {what}")
    return ", ".join(told)


def choose(ref: Ref, offered: list[Offer]) -> Offer | None:
    """The newest release that `ref` stands for; aliases pass over yanked ones."""
    found = [o for o in offered if o.release.name == ref.name and ref.matches(o.release.parsed_version)]
    usable = [offer for offer in found if ref.exact or offer.release.status != "yanked"]
    if found and not usable:
        release = found[-1].release
        why = f"{release.ref}: {visible_line(str(release.reason))}"
        raise ZooError(f"every version of {ref} was yanked ({why}); name one exactly to pull it")
    return max(usable, key=lambda offer: offer.release.parsed_version, default=None)


def install(offer: Offer, *, zoo: Path | str | None = None, progress: bool = True) -> Entry:
    """Fetch, check and put in place one release."""
    release = offer.release
    _refuse_newer(release)
    store = stores(zoo)[0]
    version = release.parsed_version
    try:
        with store.lock(release.name, "pull"):  # a second process waits here, and finds the work done
            for known in stores(zoo):
                if known.folder(release.name, version).exists():
                    return _same(known.entry(release.name, version), offer)
            with store.staging() as staged, _Bar(release, progress) as bar:
                for file in release.files:
                    _fetch(offer, file, staged / file.path, bar)
                _check_staged(staged, offer)
                with store.lock(release.name):
                    entry = store.commit(staged, release.name, version)
            for file in release.files:  # the cache was for continuing; the entry holds the bytes now
                _forget(file)
            return replace(entry, status=release.status, reason=release.reason)
    except OSError as error:
        raise ZooError(f"{release.ref} was not pulled: {error}") from error


def _refuse_newer(release: Release) -> None:
    needed = tuple(map(int, release.requires_miniwin.removeprefix(">=").split(".")))
    mine = tuple(int(part) for part in miniwin.__version__.split(".")[:3] if part.isdigit())
    if mine < needed:
        raise ZooError(
            f"{release.ref} needs miniwin {release.requires_miniwin}, this is {miniwin.__version__}; upgrade miniwin"
        )


def _same(entry: Entry, offer: Offer) -> Entry:
    if entry.digest != offer.release.digest:
        raise ZooError(
            f"{entry.ref} in {entry.folder} is not what {offer.index} calls {entry.ref} (digest "
            f"{entry.digest[:12]}... against {offer.release.digest[:12]}...); rename one of the two"
        )
    return entry


def _check_staged(staged: Path, offer: Offer) -> None:
    """The index and the entry's own manifest must tell the same story, file by file."""
    release = offer.release
    manifest = read_manifest(staged)
    if (manifest.name, manifest.version, manifest.digest) != (release.name, release.version, release.digest):
        raise ZooError(
            f"{offer.index}: {release.ref} is listed with digest {release.digest[:12]}..., "
            f"its entry.json is {manifest.name}@{manifest.version} with digest {manifest.digest[:12]}..."
        )
    if problems := file_problems(staged, manifest) or written_problems(staged):
        raise ZooError(f"{release.ref} was not pulled: {'; '.join(map(str, problems))}")


def _blob(file: IndexFile) -> Path:
    return cache_folder() / "blobs" / file.sha256[:2] / file.sha256


@contextmanager
def _blob_lock(file: IndexFile) -> Iterator[Path]:
    blob = _blob(file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{blob}.lock"):
        yield blob


def _forget(file: IndexFile) -> None:
    with _blob_lock(file) as blob:
        blob.unlink(missing_ok=True)


def _fetch(offer: Offer, file: IndexFile, target: Path, bar: _Bar) -> None:
    """Put the file at `target`, from the cache, the mirror or the first source that has it right."""
    release = offer.release
    problems: list[str] = []
    for where in _locations(offer, file, problems):
        try:
            with _blob_lock(file) as blob:
                if isinstance(where, Path):
                    _copy(where, file, target)
                else:
                    _download(where, file, blob, bar.counter())
                    shutil.copyfile(blob, target)
            bar.done(file.size)
            return
        except ZooError as error:
            problems.append(str(error))
    raise ZooError(f"{release.ref} was not pulled, {file.path} is not to be had: {'; '.join(problems)}")


def _locations(offer: Offer, file: IndexFile, problems: list[str]) -> Iterator[Location]:
    if mirror := os.environ.get("MINIWIN_ZOO_MIRROR"):
        yield below(index_location(mirror), f"{offer.release.name}/{offer.release.version}/{file.path}")
    for source in file.sources:
        try:
            yield source_location(source, offer.index)
        except ZooError as error:
            problems.append(str(error))


def _copy(source: Path, file: IndexFile, target: Path) -> None:
    try:
        if (size := source.stat().st_size) != file.size:
            raise ZooError(f"{source}: is {size} bytes long, expected {file.size}")
        shutil.copyfile(source, target)
    except OSError as error:
        raise ZooError(f"{source}: {error.strerror}") from error
    if (found := sha256_file(target)) != file.sha256:
        target.unlink()
        raise ZooError(f"{source}: has sha256 {found}, expected {file.sha256}")


def _download(url: str, file: IndexFile, blob: Path, on_bytes: Callable[[int], None]) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it announces every file on stderr
    part = blob.with_name(f"{blob.name}.part")
    downloader = ResumingDownloader(part, size=file.size, sha256=file.sha256, on_bytes=on_bytes)
    pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=blob.name, path=blob.parent, downloader=downloader)
    fsync_path(blob.parent)


class _Bar:
    """Bytes of the whole entry on stderr, on a terminal only."""

    def __init__(self, release: Release, enabled: bool) -> None:
        self._before = 0
        self._progress = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn()
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._progress.add_task(visible_line(release.ref), total=release.size)

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
