"""From a data spec to documents: which files, in which order, on which side of the split.

Listing (`list_source`) is cheap and reads no text: a prepared corpus is looked up by the list. Reading
(`documents`) happens once per corpus. Text is UTF-8 (see `plain_text.py`). NUL characters are dropped: byte 0 is
the document separator.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from miniwin.blocks.messages.listing import some
from miniwin.chat.format import ChatFormat
from miniwin.data import tables
from miniwin.data.chats import read_chats
from miniwin.data.finding import SourceFile, apart, disjoint, find, find_tables, read_bytes, source_file
from miniwin.data.plain_text import Replaced, TextReader
from miniwin.data.tasks import check_recall, recall_documents
from miniwin.specs import UserError
from miniwin.specs.data import (
    ChatData,
    ExamplesData,
    JsonlData,
    MixtureData,
    PythonStdlibData,
    Stored,
    TableData,
    TaskData,
    TextData,
)

# Tests are not library code, and installed packages are not part of the standard library.
STDLIB_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
)
ROWS = {".jsonl": "jsonl", **dict.fromkeys(tables.SUFFIXES, "table")}  # files of rows, and the source that reads them


class Document(NamedTuple):
    """One text, and the side of the split that it is on. where: file and line, known of chats, whose text is JSON."""

    side: str  # train | valid | test
    text: str
    where: str = ""


@dataclass(frozen=True)
class Source:
    """The files that a data spec means on this machine. `facts` go into the description of the corpus. chat_format: of
    a source of chats."""

    spec: Stored
    files: tuple[SourceFile, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    chat_format: ChatFormat | None = None
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
        if isinstance(self.spec, TableData):
            return sum(tables.size(file.path, self.spec.field) for file in self.files)
        return sum(file.size for file in self.files)

    def documents(self) -> Iterator[Document]:
        """Every document that is not empty, in an order that does not depend on the machine."""
        made = _task_documents(self.spec) if isinstance(self.spec, TaskData) else self._read()
        return (document for document in made if document.text)

    def _read(self) -> Iterator[Document]:
        foreign: list[tuple[Path, UserError]] = []  # files in another encoding, reported together
        for file in self.files:
            if isinstance(self.spec, TableData):
                yield from _rows(file, self.spec)
                continue
            reader = TextReader(file.path, self.replaced)
            if isinstance(self.spec, JsonlData):
                yield from _json_lines(file, self.spec, reader)
                reader.close()
                continue
            if isinstance(self.spec, ChatData):
                for where, chat in read_chats(file, reader):
                    yield _document(file, self.spec, chat)._replace(where=where)
                reader.close()
                continue
            if isinstance(self.spec, PythonStdlibData):  # not the user's text: nothing is reported about its encoding
                text = _clean(read_bytes(file.path).decode("utf-8", "replace"))
            else:
                text = _clean(reader.text(read_bytes(file.path)))
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
        case JsonlData() | ChatData():
            side = "lines" if spec.valid_paths is None else "train"
            files, _ = find(spec.paths, base, "data.paths", side, suffix=".jsonl")
            valid, _ = find(spec.valid_paths or (), base, "data.valid_paths", "valid", suffix=".jsonl")
            test, _ = find(spec.test_paths or (), base, "data.test_paths", "test", suffix=".jsonl")
            return Source(spec, disjoint(files, valid, test))
        case TableData():
            side = "lines" if spec.valid_paths is None else "train"
            files = find_tables(spec.paths, base, "data.paths", side)
            valid = find_tables(spec.valid_paths or (), base, "data.valid_paths", "valid")
            test = find_tables(spec.test_paths or (), base, "data.test_paths", "test")
            return Source(spec, disjoint(files, valid, test))
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
                files.append(source_file(path, relative, side_of(relative, spec.valid_fraction, spec.test_fraction)))
    if not files:
        raise UserError(f"data: source python-stdlib: no .py files in {root}; use source: text with files of your own")
    files.sort(key=lambda file: file.name)
    return Source(spec, tuple(files), {"python": ".".join(map(str, sys.version_info[:3])), "split": "file"})


def check_apart(spec: MixtureData, base: Path | None = None) -> None:
    """Raise UserError where text of one part is for another split in another part.

    A part that cannot be listed is left out here: whoever reads it says why.
    """
    parts: list[list[tuple[SourceFile, str]]] = []
    for part in spec.parts:
        parts.append([])
        if not isinstance(part.data, ExamplesData):
            with suppress(UserError):
                source = list_source(part.data, base)
                parts[-1] = [(file, _split(source, file)) for file in source.files]
    apart(parts)


def _split(source: Source, file: SourceFile) -> str:
    """How a file is split, in words that are equal where its text is split alike."""
    if file.side not in ("tail", "lines"):
        return file.side
    assert isinstance(source.spec, TextData | JsonlData | ChatData | TableData)
    how = "at its tail" if file.side == "tail" else "by lines"
    return f"split {how} (valid_fraction {source.spec.share:g}, test_fraction {source.spec.test_fraction or 0:g})"


def check_source(source: Source) -> None:
    """Look into each file of rows, as far as its first document: whether the column or field is there, and is text.

    Raises:
        UserError: it is not.
    """
    for file in source.files:
        if isinstance(source.spec, TableData):
            tables.check(file.path, source.spec.field)
        elif isinstance(source.spec, JsonlData):
            next(_json_lines(file, source.spec, TextReader(file.path, Replaced())), None)
        elif isinstance(source.spec, ChatData):
            next(read_chats(file, TextReader(file.path, Replaced())), None)


def _list_text(spec: TextData, base: Path) -> Source:
    for path in (*spec.paths, *(spec.valid_paths or ()), *(spec.test_paths or ())):
        if (suffix := Path(path).suffix) in ROWS:
            warnings.warn(
                f"data.paths: {path}: source: text trains on the file as it is, names of fields and all; for the texts "
                f"in it, write source: {ROWS[suffix]} and the field that holds the text",
                stacklevel=2,
            )
    files, left_out = find(spec.paths, base, "data.paths", "train")
    test, more = find(spec.test_paths or (), base, "data.test_paths", "test")
    left_out += more
    if spec.valid_paths is not None:
        valid, more = find(spec.valid_paths, base, "data.valid_paths", "valid")
        return Source(spec, disjoint(files, valid, test), {"split": "valid_paths", "left_out": left_out + more})
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
    return Source(spec, disjoint(chosen, [], test), {"split": split, "left_out": left_out})


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
                yield _document(file, spec, text)
    except OSError as error:
        raise UserError(f"data: cannot read {file.path}: {error.strerror or error}") from None


def _document(file: SourceFile, spec: JsonlData | ChatData | TableData, text: str) -> Document:
    """A row goes to a side by its text, unless the whole file is for one."""
    return Document(side_of(text, spec.share, spec.test_fraction) if file.side == "lines" else file.side, text)


def _rows(file: SourceFile, spec: TableData) -> Iterator[Document]:
    for row in tables.texts(file.path, spec.field):
        yield _document(file, spec, _clean(row))


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
