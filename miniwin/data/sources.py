"""From a data spec to documents: which files, in which order, on which side of the split.

Listing (`list_source`) is cheap and reads no text: a prepared corpus is looked up by the list. Reading
(`documents`) happens once per corpus. Text is UTF-8 (see `plain_text.py`). NUL characters are dropped: byte 0 is
the document separator.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from miniwin.blocks.messages.listing import some
from miniwin.data.plain_text import CONVERT, Replaced, TextReader
from miniwin.data.tasks import check_recall, recall_documents
from miniwin.specs import UserError, user_path
from miniwin.specs.data import JsonlData, PythonStdlibData, Stored, TaskData, TextData
from miniwin.specs.text_encodings import is_text, wide

# Tests are not library code, and installed packages are not part of the standard library.
STDLIB_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
)
ESCAPED = re.compile(r"\[([*?[])\]")
PROBE = 8192  # a file with a NUL byte in its first PROBE bytes is binary, as for git


class Document(NamedTuple):
    """One text, and the side of the split that it is on."""

    side: str  # train | valid | test
    text: str


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


@dataclass(frozen=True)
class Source:
    """The files that a data spec means on this machine. `facts` go into the description of the corpus."""

    spec: Stored
    files: tuple[SourceFile, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    replaced: Replaced = field(default_factory=Replaced, compare=False)  # known once all documents were read

    @property
    def sides(self) -> tuple[str, ...]:
        """The splits that there are: a test split only where the spec asks for it."""
        asked = self.spec.test_fraction is not None or getattr(self.spec, "test_paths", None) is not None
        return ("train", "valid", "test") if asked else ("train", "valid")

    @property
    def bytes(self) -> int:
        """About how many bytes of text there are to read, for a progress bar."""
        if isinstance(self.spec, TaskData):
            return round(self.spec.tokens * (1 + self.spec.valid_fraction + (self.spec.test_fraction or 0)))
        return sum(file.size for file in self.files)

    def documents(self) -> Iterator[Document]:
        """Every document that is not empty, in an order that does not depend on the machine."""
        made = _task_documents(self.spec) if isinstance(self.spec, TaskData) else self._read()
        return (document for document in made if document.text)

    def _read(self) -> Iterator[Document]:
        foreign: list[tuple[Path, UserError]] = []  # files in another encoding, reported together
        for file in self.files:
            reader = TextReader(file.path, self.replaced)
            if isinstance(self.spec, JsonlData):
                yield from _json_lines(file, self.spec, reader)
                reader.close()
                continue
            if isinstance(self.spec, PythonStdlibData):  # not the user's text: nothing is reported about its encoding
                text = _clean(_read_bytes(file.path).decode("utf-8", "replace"))
            else:
                text = _clean(reader.text(_read_bytes(file.path)))
                try:
                    reader.close()
                except UserError as error:
                    foreign.append((file.path, error))
                    continue
            if file.side == "tail":
                assert isinstance(self.spec, TextData)
                cut = len(text) - round(len(text) * self.spec.share)
                before = max(0, cut - round(len(text) * (self.spec.test_fraction or 0)))
                yield Document("train", text[:before])
                yield Document("test", text[before:cut])
                yield Document("valid", text[cut:])
            else:
                yield Document(file.side, text)
        if foreign:
            others = some([str(path) for path, _ in foreign[1:]], 20)
            raise UserError(str(foreign[0][1]) + (f". In another encoding, too: {others}" if others else ""))


def list_source(spec: Stored, base: Path | None = None) -> Source:
    """The files of a spec. Paths in the spec are relative to `base`.

    Raises:
        UserError: files are missing, cannot be read, or are in another encoding.
    """
    try:
        return _list(spec, Path() if base is None else base)
    except OSError as error:
        raise UserError(f"data: cannot read {error.filename}: {error.strerror or error}") from None


def _list(spec: Stored, base: Path) -> Source:
    match spec:
        case PythonStdlibData():
            return _list_stdlib(spec)
        case TextData():
            return _list_text(spec, base)
        case JsonlData():
            side = "lines" if spec.valid_paths is None else "train"
            files, _ = _find(spec.paths, base, "data.paths", side, suffix=".jsonl")
            valid, _ = _find(spec.valid_paths or (), base, "data.valid_paths", "valid", suffix=".jsonl")
            test, _ = _find(spec.test_paths or (), base, "data.test_paths", "test", suffix=".jsonl")
            return Source(spec, _disjoint(files, valid, test))
        case TaskData():
            check_recall(spec.length, spec.num_pairs, spec.num_pairs)
            return Source(spec, facts={"task": spec.task})


def side_of(name: str, share: float, test: float | None = None) -> str:
    """`valid` for `share` of all names, by a hash of the name, whatever other files there are; else `train`.

    test: the share that is for the test. It is taken out of train: valid is what it is without it.
    """
    digest = hashlib.sha256(f"miniwin-split:{name}".encode("utf-8", "replace")).digest()
    place = int.from_bytes(digest[:8], "big")
    if place < share * 2**64:
        return "valid"
    return "test" if test is not None and place < (share + test) * 2**64 else "train"


def _list_stdlib(spec: PythonStdlibData) -> Source:
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, folders, names in os.walk(root):
        # config-* folders and _sysconfigdata* describe how this one Python was built: not the library.
        folders[:] = [one for one in folders if one not in STDLIB_LEFT_OUT and not one.startswith("config-")]
        for name in names:
            path = Path(folder, name)
            site = name.startswith("_sysconfigdata") or name in ("sitecustomize.py", "usercustomize.py")
            if path.suffix == ".py" and not site and path.is_file():
                relative = path.relative_to(root).as_posix()
                files.append(_file(path, relative, side_of(relative, spec.valid_fraction, spec.test_fraction)))
    if not files:
        raise UserError(f"data: source python-stdlib: no .py files in {root}; use source: text with files of your own")
    files.sort(key=lambda file: file.name)
    return Source(spec, tuple(files), {"python": ".".join(map(str, sys.version_info[:3])), "split": "file"})


def _list_text(spec: TextData, base: Path) -> Source:
    files, left_out = _find(spec.paths, base, "data.paths", "train")
    test, more = _find(spec.test_paths or (), base, "data.test_paths", "test")
    left_out += more
    if spec.valid_paths is not None:
        valid, more = _find(spec.valid_paths, base, "data.valid_paths", "valid")
        return Source(spec, _disjoint(files, valid, test), {"split": "valid_paths", "left_out": left_out + more})
    by_file = [replace(file, side=side_of(file.name, spec.share, spec.test_fraction)) for file in files]
    size = sum(file.size for file in files)
    held = sum(file.size for file in by_file if file.side == "valid") / max(1, size)
    fits = spec.share / 2 <= held <= min(2 * spec.share, 0.5 + spec.share / 2)  # never all of the text
    split = spec.split or ("file" if fits else "tail")
    if split == "file" and len({file.side for file in by_file}) == 1:
        only = by_file[0].side
        raise UserError(
            f"data: split: file puts all {len(files)} files on the {only} side; expected some on both: give "
            "more files, use split: tail, or name files in valid_paths"
        )
    chosen = by_file if split == "file" else [replace(file, side="tail") for file in files]
    return Source(spec, _disjoint(chosen, [], test), {"split": split, "left_out": left_out})


def _find(
    paths: Iterable[str], base: Path, where: str, side: str, suffix: str | None = None
) -> tuple[list[SourceFile], int]:
    """The files that `paths` name, each once, and how many were left out of folders and globs as binary."""
    found: dict[str, SourceFile] = {}
    left_out = 0
    for given in paths:
        root = base / user_path(given)
        if root.is_file():
            named = [(root, root.name)]
        elif root.is_dir():
            inside = ((path, path.relative_to(root).as_posix()) for path in _walk(root))
            named = [one for one in inside if suffix is None or one[0].suffix == suffix]
        elif glob.has_magic(given):
            pattern = user_path(given)
            stem = base / _unglobbed(pattern)
            matches = (base / match for match in glob.glob(str(pattern), root_dir=base, recursive=True))
            named = [(path, path.relative_to(stem).as_posix()) for path in matches if path.is_file()]
        else:
            raise UserError(
                f"{where}: no such file or folder: {given!r} (looked for {root.absolute()}); a path is "
                "relative to the folder of the YAML file that names it"
            )
        kept, foreign = [], []
        for path, name in sorted(named, key=lambda one: one[1]):
            start = _read_bytes(path, PROBE)
            encoding = wide(start)
            if encoding and (path == root or is_text(start, encoding)):
                foreign.append((path, encoding))
            elif path != root and b"\0" in start:
                left_out += 1
            else:
                kept.append(_file(path, name, side))
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


def _read_bytes(path: Path, count: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"data: cannot read {path}: {error.strerror or error}") from None


def _file(path: Path, name: str, side: str) -> SourceFile:
    stat = path.stat()
    return SourceFile(path.absolute(), name, side, stat.st_size, stat.st_mtime_ns)


def _true_name(path: Path) -> str:
    """One name for a file, however it was named: through a link, or as A.txt on a system where that is a.txt."""
    name = str(path.resolve())
    small = name.lower()
    return small if small != name and os.path.exists(small) and os.path.samefile(small, name) else name


def _disjoint(train: list[SourceFile], valid: list[SourceFile], test: list[SourceFile]) -> tuple[SourceFile, ...]:
    """All files, or UserError where one is named for two splits."""
    seen: dict[str, str] = {}
    for files, named in ((train, "paths"), (valid, "valid_paths"), (test, "test_paths")):
        for file in files:
            name = _true_name(file.path)
            if (before := seen.setdefault(name, named)) != named:
                raise UserError(
                    f"data: {file.path} is named by both {before} and {named}; text that is trained on, or chosen by, "
                    "says nothing about loss on new text: name it in one of them"
                )
    return (*train, *valid, *test)


def _json_lines(file: SourceFile, spec: JsonlData, reader: TextReader) -> Iterator[Document]:
    expected = f'expected a JSON object with text in "{spec.field}", like {{"{spec.field}": "..."}}'
    try:
        with file.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = reader.text(line, number)
                if not text.strip(" \t\r\n\v\f"):
                    continue
                where = f"{file.path}:{number}"
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError) as error:
                    other = "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else other
                    raise UserError(f"{where}: not JSON ({reason}); {expected}") from None
                if not isinstance(record, dict):
                    raise UserError(f"{where}: got {_kind(record)}; {expected}")
                if spec.field not in record:
                    raise UserError(f"{where}: got the fields {some(map(repr, record), 12) or 'none'}; {expected}")
                if not isinstance(record[spec.field], str):
                    raise UserError(f"{where}: got {_kind(record[spec.field])} in {spec.field!r}; {expected}")
                text = _clean(record[spec.field])
                yield Document(
                    side_of(text, spec.share, spec.test_fraction) if file.side == "lines" else file.side, text
                )
    except OSError as error:
        raise UserError(f"data: cannot read {file.path}: {error.strerror or error}") from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _task_documents(spec: TaskData) -> Iterator[Document]:
    for side, share in (("train", 1.0), ("valid", spec.valid_fraction), ("test", spec.test_fraction or 0.0)):
        if not share:
            continue
        count = -(-round(spec.tokens * share) // (spec.length + 1))  # an example is its length and a separator
        examples = recall_documents(spec.length, spec.num_pairs, spec.seed, side)
        yield from (Document(side, next(examples)) for _ in range(max(1, count)))


def _clean(text: str) -> str:
    # JSON may spell half a surrogate pair, which is no character and has no UTF-8.
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
