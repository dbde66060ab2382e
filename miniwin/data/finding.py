"""Which files a data spec means: files, folders and patterns, each file once, and none for two splits."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.data import tables
from miniwin.data.plain_text import CONVERT
from miniwin.specs import UserError, user_path
from miniwin.specs.text_encodings import is_text, wide

ESCAPED = re.compile(r"\[([*?[])\]")
PROBE = 8192  # a file with a NUL byte in its first PROBE bytes is binary, as for git


@dataclass(frozen=True)
class SourceFile:
    """A file of text, as it is listed."""

    path: Path
    name: str  # relative to what the spec names, with "/" on every system; files are sorted and split by it
    side: str  # train | valid | test | tail (the last part is valid, the one before it test) | lines (each by its text)
    size: int
    mtime_ns: int

    def key(self) -> list[Any]:
        return [str(self.path), self.side, self.size, self.mtime_ns]


def find(
    paths: Iterable[str], base: Path, where: str, side: str, suffix: str | None = None
) -> tuple[list[SourceFile], int]:
    """The files that `paths` name, each once, and how many were left out of folders and globs as binary."""
    found: dict[str, SourceFile] = {}
    left_out = 0
    for given in paths:
        root, named = _named(given, base, where)
        if root.is_dir():
            named = [one for one in named if suffix is None or one[0].suffix == suffix]
        kept, foreign = [], []
        for path, name in sorted(named, key=lambda one: one[1]):
            start = read_bytes(path, PROBE)
            encoding = wide(start)
            if encoding and (path == root or is_text(start, encoding)):
                foreign.append((path, encoding))
            elif path != root and b"\0" in start:
                left_out += 1
            else:
                kept.append(source_file(path, name, side))
        if foreign:
            (path, encoding), others = foreign[0], some([str(path) for path, _ in foreign[1:]], 20)
            raise UserError(
                f"{where}: {path}:1:1: this is {encoding}. {CONVERT.format(encoding=encoding)}"
                + (f". In another encoding, too: {others}" if others else "")
            )
        if not kept:
            what = f"files that end in {suffix}" if suffix and root.is_dir() else "text files"
            raise UserError(f"{where}: {given!r} names no {what} (looked in {root.absolute()}); expected at least one")
        for file in kept:
            found.setdefault(_true_name(file.path), file)
    return list(found.values()), left_out


def find_tables(paths: Iterable[str], base: Path, where: str, side: str) -> list[SourceFile]:
    """The tables that `paths` name, each once."""
    found: dict[str, SourceFile] = {}
    for given in paths:
        root, named = _named(given, base, where)
        if root.is_dir():
            kept = set(tables.chosen((path for path, _ in named), where))
            named = [one for one in named if one[0] in kept]
        if not named:
            raise UserError(
                f"{where}: {given!r} names no tables (looked in {root.absolute()}); expected at least one file that "
                f"ends in {', '.join(tables.SUFFIXES)}"
            )
        for path, name in sorted(named, key=lambda one: one[1]):
            found.setdefault(_true_name(path), source_file(path, name, side))
    return list(found.values())


def _named(given: str, base: Path, where: str) -> tuple[Path, list[tuple[Path, str]]]:
    """(the path, the files that it names and their names below it), for a file, a folder or a pattern."""
    root = base / user_path(given)
    if root.is_file():
        return root, [(root, root.name)]
    if root.is_dir():
        return root, [(path, path.relative_to(root).as_posix()) for path in _walk(root)]
    if glob.has_magic(given):
        pattern = user_path(given)
        stem = base / _unglobbed(pattern)
        matches = (base / match for match in glob.glob(str(pattern), root_dir=base, recursive=True))
        return root, [(path, path.relative_to(stem).as_posix()) for path in matches if path.is_file()]
    raise UserError(
        f"{where}: no such file or folder: {given!r} (looked for {root.absolute()}); a path is "
        "relative to the folder of the YAML file that names it"
    )


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [one for one in folders if not one.startswith(".") and one != "__pycache__"]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _unglobbed(pattern: Path) -> Path:
    """The part of a pattern before its first wildcard. A wildcard that glob.escape has escaped does not count."""
    parts = []
    for part in pattern.parts:
        if glob.has_magic(ESCAPED.sub("", part)):
            break
        parts.append(ESCAPED.sub(r"\1", part))
    return Path(*parts)


def read_bytes(path: Path, count: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"data: cannot read {path}: {error.strerror or error}") from None


def source_file(path: Path, name: str, side: str) -> SourceFile:
    stat = path.stat()
    return SourceFile(path.absolute(), name, side, stat.st_size, stat.st_mtime_ns)


def _true_name(path: Path) -> str:
    """One name for a file, however it was named: through a link, or as A.txt on a system where that is a.txt."""
    name = str(path.resolve())
    small = name.lower()
    return small if small != name and os.path.exists(small) and os.path.samefile(small, name) else name


def _names(path: Path) -> list[Any]:
    """What tells whether two paths are one file: its true name, and its place on the disk, which hard links share."""
    name = _true_name(path)
    try:
        found = os.stat(name)
    except OSError:  # gone meanwhile: whoever reads it says so
        return [name]
    # Some file systems have no number for a file, and some systems link all empty files to one.
    return [name, (found.st_dev, found.st_ino)] if found.st_ino and found.st_size else [name]


def apart(parts: Sequence[Sequence[tuple[SourceFile, str]]]) -> None:
    """Raise UserError where two parts of a mixture split the same file differently.

    parts: the files of each, with how each is split: for one side as a whole, or within by some rule.
    """
    seen: dict[Any, tuple[int, str]] = {}
    for number, files in enumerate(parts):
        for file, split in files:
            for name in _names(file.path):
                part, before = seen.setdefault(name, (number, split))
                if before != split and part != number:
                    raise UserError(
                        f"data.parts.{number}: {file.path} is {split} here, and {before} in data.parts.{part}; text "
                        "that is trained on, or chosen by, says nothing about loss on new text: split it alike in all "
                        "parts"
                    )


def disjoint(train: list[SourceFile], valid: list[SourceFile], test: list[SourceFile]) -> tuple[SourceFile, ...]:
    """All files, or UserError where one is named for two splits."""
    seen: dict[Any, str] = {}
    for files, named in ((train, "paths"), (valid, "valid_paths"), (test, "test_paths")):
        for file in files:
            others = {seen.setdefault(name, named) for name in _names(file.path)} - {named}
            if others:
                raise UserError(
                    f"data: {file.path} is named by both {others.pop()} and {named}; text that is trained on, or "
                    "chosen by, says nothing about loss on new text: name it in one of them"
                )
    return (*train, *valid, *test)
