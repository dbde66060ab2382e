"""Run folders at a URL that fsspec knows, such as s3://bucket/runs: for machines that share no folder.

    NAME-ID/place.json                              which study it is of
    NAME-ID/trials/HASH/TOKENS-SERIAL-DIGEST.tar    the folder of a trial at a checkpoint, after so many tokens

A worker trains in a folder of its own machine. At each checkpoint the folder goes up as one file, under a name that is
new and ends with the digest of its bytes. So an upload that was cut off is told from its name, and is never taken for a
checkpoint. The two latest files stay. Who takes a trial over brings the latest whole one down.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from miniwin.files.writing import Unwritable, move, remove_tree, write_text
from miniwin.runs import BEFORE_DECAY_BEST, CHECKPOINTS, LOCK, METRICS, RUN, SHARDS, WEIGHTS
from miniwin.search.outcome import tokens_in
from miniwin.specs import UserError

KEPT = 2  # the latest, and one before it, in case the latest is cut off
MARK, CURRENT = "place.json", ".place"  # the second in a folder here: the name of the file that it is like
_NAME = re.compile(r"(\d{15})-(\d{6})-([0-9a-f]{64})\.tar")


@dataclass(frozen=True, order=True)
class Kept:
    """A file of a folder at the place. The order is that of training."""

    tokens: int
    serial: int
    digest: str

    @classmethod
    def of(cls, name: str) -> Kept | None:
        found = _NAME.fullmatch(name)
        return None if found is None else cls(int(found[1]), int(found[2]), found[3])

    @property
    def name(self) -> str:
        return f"{self.tokens:015}-{self.serial:06}-{self.digest}.tar"


class RemoteFolder:
    """A folder at a URL. Raises Unwritable, with one message, if the place refuses something or is away."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            missing = "needs fsspec, which is not installed: pip install 'miniwin[remote]'"
            raise UserError(f"{self.url}: {missing}") from None
        try:
            return url_to_fs(self.url, use_listings_cache=False)  # type: ignore[no-any-return]
        except (ImportError, ValueError) as error:
            expected = "expected a URL that fsspec knows, such as s3://bucket/runs"
            raise UserError(f"{self.url}: {error}; {expected}") from None

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (UserError, FileNotFoundError):
            raise
        except Exception as error:  # each file system raises its own
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            known = error if isinstance(error, OSError) else OSError(why)
            raise Unwritable(
                Path(self.url), known, f"{self.url}: the place for run folders refuses or is away ({why})"
            ) from None

    def path(self, *names: str) -> str:
        return "/".join([self._opened[1].rstrip("/"), *names])

    def read(self, name: str) -> bytes | None:
        """A small file, or None if it is not there."""
        with self._said(), suppress(FileNotFoundError):
            return bytes(self._opened[0].cat_file(self.path(name)))
        return None

    def write(self, name: str, data: bytes) -> None:
        with self._said():
            self._opened[0].makedirs(self.path(), exist_ok=True)
            self._opened[0].pipe_file(self.path(name), data)

    def remove(self, *names: str) -> None:
        with self._said(), suppress(FileNotFoundError):
            self._opened[0].rm_file(self.path(*names))

    def kept(self, folder: str) -> list[Kept]:
        """The files of a folder, the latest last."""
        with self._said(), suppress(FileNotFoundError):
            there = self._opened[0].ls(self.path(folder), detail=False, refresh=True)
            return sorted(one for path in there if (one := Kept.of(str(path).rpartition("/")[2])) is not None)
        return []

    def put(self, source: Path, folder: str, name: str) -> None:
        with self._said():
            self._opened[0].makedirs(self.path(folder), exist_ok=True)
            self._opened[0].put_file(str(source), self.path(folder, name))

    def size(self, folder: str, name: str) -> int:
        with self._said(), suppress(FileNotFoundError):
            return int(self._opened[0].size(self.path(folder, name)))
        return 0

    def members(self, folder: str, name: str) -> dict[str, int]:
        """The files in an archive, with their bytes: only their headers are read. Nothing if it is damaged."""
        with (
            self._said(),
            suppress(FileNotFoundError, tarfile.TarError),
            self._opened[0].open(self.path(folder, name), "rb") as file,
            tarfile.open(fileobj=file) as tar,
        ):
            return {member.name: member.size for member in tar}
        return {}

    def get(self, folder: str, name: str, target: Path) -> bool:
        with self._said(), suppress(FileNotFoundError):
            self._opened[0].get_file(self.path(folder, name), str(target))
            return True
        return False


class RemotePlace:
    """The run folders of one study at a URL, with those of this machine in `folder`. See Place of places.py."""

    elsewhere = True

    def __init__(self, url: str, folder: Path) -> None:
        self.remote, self.folder = RemoteFolder(url), folder

    def check_writable(self) -> None:
        name = f"{uuid.uuid4().hex}.tmp"
        self.remote.write(name, b"0")
        self.remote.remove(name)

    def fetch(self, folder: Path) -> None:
        """Bring a folder down, if the place has a later one than this machine."""
        name = self._name(folder)
        for one in reversed(self.remote.kept(name)):
            if (one.tokens, one.serial) <= (tokens_in(folder), _serial(folder)):
                return
            with TemporaryDirectory(dir=_made(self.folder), prefix=".fetched-") as temporary:
                archive, whole = Path(temporary) / "archive", Path(temporary) / "folder"
                if not self.remote.get(name, one.name, archive) or _digest(archive) != one.digest:
                    continue  # its upload was cut off
                with tarfile.open(archive) as tar:
                    tar.extractall(whole, filter="data")
                write_text(whole / CURRENT, one.name)
                remove_tree(folder)
                _made(folder.parent)
                move(whole, folder)
                return

    def push(self, folder: Path, *, over: bool = False, tokens: int | None = None) -> None:
        """Put a folder up as it is now. over: nobody goes on with it, so it goes without its checkpoints. tokens: how
        far it counts as; None: as far as it is."""
        name = self._name(folder)
        before = self.remote.kept(name)
        with TemporaryDirectory(dir=_made(self.folder), prefix=".pushed-") as temporary:
            archive = Path(temporary) / "archive"
            # Before the checkpoint is read, which may be later but not earlier.
            tokens = tokens_in(folder) if tokens is None else tokens
            with tarfile.open(archive, "w") as tar:
                for path in _files(folder, over):
                    tar.add(path, path.relative_to(folder).as_posix(), recursive=False)
            serial = max([one.serial for one in before] + [_serial(folder)]) + 1
            new = Kept(tokens, serial, _digest(archive))
            self.remote.put(archive, name, new.name)
        write_text(folder / CURRENT, new.name)
        for old in before[: 1 - KEPT]:
            self.remote.remove(name, old.name)

    def kept(self, folder: Path) -> list[Kept]:
        """The files of a folder at the place, the latest last."""
        return self.remote.kept(self._name(folder))

    def spare(self, folder: Path, *, weights: bool) -> list[Kept]:
        """The files of a folder before the latest, if the latest is whole: with the weights, if they are asked for."""
        kept = self.kept(folder)
        if len(kept) < 2:
            return []
        *earlier, latest = kept
        there = self.remote.members(self._name(folder), latest.name)
        return earlier if there and (not weights or any(Path(file).name == WEIGHTS for file in there)) else []

    def remove(self, folder: Path, files: Sequence[Kept]) -> None:
        for one in files:
            self.remote.remove(self._name(folder), one.name)

    def bytes(self, folder: Path, files: Sequence[Kept]) -> int:
        return sum(self.remote.size(self._name(folder), one.name) for one in files)

    def checkpoint_bytes(self, folder: Path) -> int:
        """The bytes of the checkpoints in the latest file of a folder."""
        kept = self.kept(folder)
        there = self.remote.members(self._name(folder), kept[-1].name) if kept else {}
        return sum(size for file, size in there.items() if _is_checkpoint(Path(file)))

    def forget(self, folder: Path) -> None:
        """Remove a folder from this machine."""
        shutil.rmtree(folder, ignore_errors=True)

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.folder).as_posix()


def mark(url: str, said: dict[str, Any]) -> None:
    RemoteFolder(url).write(MARK, json.dumps(said).encode())


def marked(url: str) -> Any:
    """What `mark` wrote; None if there is nothing that can be read."""
    text = RemoteFolder(url).read(MARK)
    with suppress(ValueError):
        return None if text is None else json.loads(text)
    return None


def _files(folder: Path, over: bool) -> list[Path]:
    """In an order that is safe while training goes on: what run.json says is never ahead of the checkpoint, and the
    metrics are never behind it."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in (LOCK, CURRENT)
        and path.suffix != ".tmp"
        and not (over and _is_checkpoint(path))
    ]
    return sorted(found, key=lambda path: (path.name != RUN, path.name == METRICS, path))


def _is_checkpoint(path: Path) -> bool:
    return path.name in (*CHECKPOINTS, BEFORE_DECAY_BEST) or path.parent.name in SHARDS


def _serial(folder: Path) -> int:
    """The serial number of the file that a folder here is like; 0 if it has not been up or down yet."""
    with suppress(OSError):
        found = Kept.of((folder / CURRENT).read_text(encoding="ascii").strip())
        return 0 if found is None else found.serial
    return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
