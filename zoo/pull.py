"""Pulling an entry that an index offers into the user's zoo.

`$MINIWIN_ZOO_INDEX` is the path or the URL of an `index.json`, or of the folder that holds it.

Every file is fetched into the cache (resumable, hash checked), from `$MINIWIN_ZOO_MIRROR` first when it is
set, then from the sources that the index gives; the entry is staged and renamed into the zoo in one step,
as `add` does.
"""

from __future__ import annotations

import difflib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

import miniwin
from miniwin.blocks.some import some
from miniwin.blocks.visible import visible_line
from miniwin.places import cache_folder
from miniwin.specs import UserError
from miniwin.writing import flush
from miniwin.zoo.check import file_problems, written_problems
from miniwin.zoo.entry import Entry, read_manifest
from miniwin.zoo.errors import UnreachableError, ZooError
from miniwin.zoo.files import sha256_file
from miniwin.zoo.index import INDEX, IndexFile, Release, index_path, parse_index, read_index_file
from miniwin.zoo.marks import is_remembered, remember
from miniwin.zoo.sources import Location, below, index_beneath, index_location, source_location
from miniwin.zoo.store import built_in_zoo, stores
from miniwin.zoo.transport import ResumingDownloader, offline, read_url
from miniwin.zoo.version import Ref, parse_ref

MAX_INDEX_BYTES = 16_000_000
MOST_SOURCES = 8  # of a file: each may take its time to fail


@dataclass(frozen=True)
class Offer:
    """A release, and the index that offers it."""

    release: Release
    index: Location
    near: bool = True  # whether the index lies on this machine or its network, so that its sources may


@dataclass(frozen=True)
class Asked:
    """What the indexes offer, and what is wrong with those that cannot be read, by location."""

    offers: list[Offer]
    problems: dict[str, str]

    def said(self) -> str:
        """What came of asking the indexes for something that none of them has."""
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
    """Ask every index; without a network (MINIWIN_OFFLINE), those that are files. One that fails stops no other."""
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
    """Read what the indexes on this disk say, where they have changed since: that takes no network."""
    with suppress(ZooError, OSError):  # what is wrong is said when something is looked for in it
        for location in indexes():
            if isinstance(location, Path) and not _is_own(location) and not is_remembered(location):
                _read(location)


def _read(location: Location) -> list[Offer]:
    """What an index offers. What it says against releases is remembered."""
    offers = _read_file(location) if isinstance(location, Path) else _read_url(location)
    if not _is_own(location):
        remember(location, [offer.release for offer in offers])
    return offers


def _is_own(location: Location) -> bool:
    """The package's own index: what it says is read with the package's entries."""
    return location == index_path(built_in_zoo())


def offers() -> list[Offer]:
    """Everything that the indexes offer; an error if one cannot be read."""
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
    """What the index at a URL offers, which may also be the URL of its folder."""
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


def pull(ref: str, *, zoo: Path | str | None = None, progress: bool = True) -> Entry:
    """Fetch the entry that `ref` stands for in the indexes, unless that version is in the zoo already."""
    parsed, asked = parse_ref(ref), ask()
    offered = asked.offers
    offer = choose(parsed, offered)
    if offer is None:
        found = sorted(o.release.parsed_version for o in offered if o.release.name == parsed.name)
        there = [str(version) for version in found]
        names = sorted({o.release.name for o in offered})
        what = f"{parsed.name} {some(there, 20)}" if there else some(names, 20) or "nothing"
        near = [] if there else difflib.get_close_matches(parsed.name, names, n=1)
        what += f"; did you mean {near[0]}?" if near else ""
        raise ZooError(f"{parsed} cannot be pulled: {asked.said()}; what is offered: {what}")
    warn_of(asked)
    return install(offer, zoo=zoo, progress=progress)


def warn_of(asked: Asked) -> None:
    """An index that was passed over may have had something newer."""
    if asked.problems:
        warnings.warn(f"an index was passed over: {'; '.join(asked.problems.values())}", stacklevel=3)


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
    store = stores(zoo, to_write=True)[0]
    version = release.parsed_version
    try:
        with store.lock(release.name, "pull"):  # a second process waits here, and finds the work done
            for known in stores(zoo):
                if known.folder(release.name, version).exists():
                    return _marked(_same(known.entry(release.name, version), offer), release)
            with store.staging() as staged, _Bar(release, progress) as bar:
                silent: set[str] = set()
                for file in release.files:
                    _fetch(offer, file, staged / file.path, bar, silent)
                _check_staged(staged, offer)
                with store.lock(release.name):
                    entry = store.commit(staged, release.name, version)
            for file in release.files:  # the cache was for continuing; the entry holds the bytes now
                _forget(file)
            return _marked(entry, release)
    except OSError as error:
        raise ZooError(f"{release.ref} was not pulled: {error}") from error


def _refuse_newer(release: Release) -> None:
    needed = tuple(map(int, release.requires_miniwin.removeprefix(">=").split(".")))
    mine = tuple(int(part) for part in miniwin.__version__.split(".")[:3] if part.isdigit())
    if mine < needed:
        raise ZooError(
            f"{release.ref} needs miniwin {release.requires_miniwin}, this is {miniwin.__version__}; upgrade miniwin"
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


def _fetch(offer: Offer, file: IndexFile, target: Path, bar: _Bar, silent: set[str]) -> None:
    """Put the file at `target`, from the cache, the mirror or the first source that has it right.

    silent: hosts that gave no answer. They are asked last: each may take minutes to say nothing.
    """
    release = offer.release
    problems: list[str] = []
    places = list(_locations(offer, file, problems))
    for where, near in sorted(places, key=lambda place: _host(place[0]) in silent):
        try:
            with _blob_lock(file) as blob:
                if isinstance(where, Path):
                    _copy(where, file, target)
                else:
                    _download(where, file, blob, near, bar.counter())
                    shutil.copyfile(blob, target)
            bar.done(file.size)
            return
        except UnreachableError as error:
            silent.add(_host(where))
            problems.append(str(error))
        except ZooError as error:
            problems.append(str(error))
    raise ZooError(f"{release.ref} was not pulled, {file.path} is not to be had: {'; '.join(problems)}")


def _locations(offer: Offer, file: IndexFile, problems: list[str]) -> Iterator[tuple[Location, bool]]:
    """Where to look, and whether that may be on this machine or its network: a mirror is the user's own choice."""
    if mirror := os.environ.get("MINIWIN_ZOO_MIRROR"):
        try:
            yield below(index_location(mirror), f"{offer.release.name}/{offer.release.version}/{file.path}"), True
        except UserError as error:
            problems.append(f"MINIWIN_ZOO_MIRROR: {error}")
    for source in file.sources[:MOST_SOURCES]:
        try:
            yield source_location(source, offer.index), offer.near
        except ZooError as error:
            problems.append(str(error))
    if len(file.sources) > MOST_SOURCES:
        problems.append(f"only the first {MOST_SOURCES} of {len(file.sources)} sources are tried")


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
        raise ZooError(f"{source}: {error.strerror}") from error
    if (found := sha256_file(target)) != file.sha256:
        target.unlink()
        raise ZooError(f"{source}: has sha256 {found}, expected {file.sha256}")


def _download(url: str, file: IndexFile, blob: Path, near: bool, on_bytes: Callable[[int], None]) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it announces every file on stderr
    part = blob.with_name(f"{blob.name}.part")
    downloader = ResumingDownloader(part, size=file.size, sha256=file.sha256, near=near, on_bytes=on_bytes)
    pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=blob.name, path=blob.parent, downloader=downloader)
    flush(blob.parent)


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
