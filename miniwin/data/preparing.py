"""Preparing a corpus: a source is tokenised once, and kept in the cache as memory-mapped arrays of token ids.

    <cache>/data/<key>/train.npy  valid.npy     ids, uint16 for vocabularies up to 65536, uint32 above
                       test.npy                 where the spec asks for a test split
                       train.counted.npy  train.starts.npy    of chats
                       corpus.json              what it is, and how big and what hash each file has

The key is a hash of the spec, the file list (path, size, time) and the tokenizer, so looking a corpus up reads
no text. The fingerprint is a hash of the text itself, the split and the tokenizer: it is the same on every
machine with the same text. One process prepares a corpus while others wait, and a rename puts it under its key. A
corpus that does not match its own hashes is prepared again. The fingerprint is of the split before copies are left out
of the test (copies.py), so that it stays what it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from miniwin.chat.format import ChatFormat, make_chat_format, template_text
from miniwin.data.chat_rows import ChatRows
from miniwin.data.chats import ChatEncoder
from miniwin.data.copies import COPIES, digest, looked_for, seen
from miniwin.data.corpus import Corpus
from miniwin.data.examples import ExampleRows, fingerprint
from miniwin.data.mixture import MixedRows
from miniwin.data.sources import Source, check_apart, list_source
from miniwin.data.tasks import character_ids
from miniwin.display.formats import plural
from miniwin.files.folders import cache_folder
from miniwin.files.hashing import sha256_file
from miniwin.files.json_files import read_json
from miniwin.files.writing import Unwritable, move, remove_tree, write_flushed
from miniwin.specs import UserError, user_path
from miniwin.specs.data import ChatData, DataSpec, ExamplesData, JsonlData, MixtureData, TableData, TaskData, TextData
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.hugging_face import SEPARATORS

FORMAT = 1
READING = 2  # version of how bytes become text; part of the key, so that corpora of older versions are made anew
PIECE = 1 << 14  # characters that the tokenizer gets in one piece: a whole novel would take minutes and gigabytes
BATCH = 256  # pieces that the tokenizer gets at once, to share out among its threads
# Of chats: which tokens of train.npy are counted, and where each chat begins, the end of the last one included.
COUNTED, STARTS = "train.counted", "train.starts"
CHATS: dict[str, np.dtype[Any]] = {COUNTED: np.dtype("|u1"), STARTS: np.dtype("<i8")}

Encoded = tuple[np.ndarray, np.ndarray | None]  # ids, and of a chat which of them are counted


class Piece(NamedTuple):
    """A piece of a document. last: whether the document ends with it. where: see Document."""

    side: str
    text: str
    last: bool
    where: str


def prepare(
    spec: DataSpec,
    tokenizer: Tokenizer,
    base: Path | None = None,
    cache_dir: Path | None = None,
    *,
    progress: bool = False,
    chat_format: ChatFormat | None = None,
) -> Corpus:
    """The corpus of `spec`, from the cache or made now. Paths in the spec are relative to `base`.

    chat_format: that of the model, for chats; a template that the spec names comes first.

    Raises:
        UserError: the text cannot be found or read, one side of the split is empty, or the tokenizer has no separator.
        Unwritable: the cache folder cannot be written.
    """
    if isinstance(spec, ExamplesData):
        return _drawn(spec, tokenizer)
    if isinstance(spec, MixtureData):
        check_apart(spec, base)
        return _mixed(
            spec,
            tokenizer,
            [_part(spec, n, tokenizer, base, cache_dir, progress, chat_format) for n in range(len(spec.parts))],
        )
    if tokenizer.separator is None:
        raise UserError(
            f"the tokenizer {tokenizer.name} has no token to separate documents with; expected one of "
            f"{', '.join(SEPARATORS)}, or byte 0 in a byte-level vocabulary: add one as a special token"
        )
    source = list_source(spec, base)
    if isinstance(spec, ChatData):
        source = _with_format(source, spec, tokenizer, base, chat_format)
    root = (cache_folder() if cache_dir is None else user_path(cache_dir)) / "data"
    key = _key(source, tokenizer)
    found = _open(root / key) or _made(root, key, source, tokenizer, progress)
    if replaced := found.info.get("replaced"):
        warnings.warn(
            f"{replaced} place{'s' * (replaced > 1)} in the {spec.source} data: not UTF-8, and read as U+FFFD; first "
            f"{found.info['replaced_first']}",
            stacklevel=2,
        )
    return replace(found, chat_format=source.chat_format)


def _with_format(
    source: Source, spec: ChatData, tokenizer: Tokenizer, base: Path | None, own: ChatFormat | None
) -> Source:
    """The source with the format of its chats: the template that the spec names, or that of the model."""
    if spec.template is not None:
        assert tokenizer.separator is not None
        ends = [*(() if own is None else own.end_tokens), tokenizer.decode([tokenizer.separator])]
        text = template_text((base or Path()) / user_path(spec.template))
        own = make_chat_format(text, {} if own is None else own.names, ends, tokenizer)
    if own is None:
        raise UserError(
            "data: chats need a chat template, and there is none: begin with the weights of a model that has one "
            "(--from), or name a file of your own as template"
        )
    known = {"template": own.template, "names": dict(own.names), "end_tokens": list(own.end_tokens)}
    digest_of = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return replace(source, chat_format=own, facts={"chat_format": digest_of[:16], "loss": spec.loss})


def _drawn(spec: ExamplesData, tokenizer: Tokenizer) -> Corpus:
    none = np.zeros(0, dtype=np.int64)
    info = {"source": spec.source, "task": spec.parsed_task.model_dump(mode="json"), "loss": spec.loss}
    info |= {"tokenizer": tokenizer.name}
    return Corpus(none, none, fingerprint(spec, tokenizer), info, ExampleRows(spec, tokenizer))


def _part(
    spec: MixtureData,
    place: int,
    tokenizer: Tokenizer,
    base: Path | None,
    cache_dir: Path | None,
    progress: bool,
    chat_format: ChatFormat | None,
) -> Corpus:
    try:
        return prepare(spec.parts[place].data, tokenizer, base, cache_dir, progress=progress, chat_format=chat_format)
    except Unwritable:  # the cache, not the data
        raise
    except UserError as error:
        said = str(error)
        raise UserError(f"data.parts.{place}.{said if said.startswith('data') else f'data: {said}'}") from None


def _mixed(spec: MixtureData, tokenizer: Tokenizer, corpora: Sequence[Corpus]) -> Corpus:
    none = np.zeros(0, dtype=np.int64)
    parts = tuple((part.label, part.weight, corpus) for part, corpus in zip(spec.parts, corpora, strict=True))
    rows = MixedRows([(name, corpus.rows) for name, _, corpus in parts], [weight for _, weight, _ in parts])
    question = [FORMAT, [[str(weight), corpus.fingerprint] for _, weight, corpus in parts]]
    info = {
        "source": spec.source,
        "parts": [{"name": name, "weight": weight, **corpus.describe()} for name, weight, corpus in parts],
        "tokenizer": tokenizer.name,
    }
    found = hashlib.sha256(json.dumps(question).encode()).hexdigest()
    chat_format = next((corpus.chat_format for corpus in corpora if corpus.chat_format is not None), None)
    return Corpus(none, none, found, info, rows, parts, chat_format=chat_format)


def _key(source: Source, tokenizer: Tokenizer) -> str:
    """The name of a corpus in the cache: a hash of all that its ids depend on, without reading text."""
    files = [file.key() for file in source.files]
    reading: list[Any] = [READING] if isinstance(source.spec, TextData | JsonlData | ChatData) else []
    reading += [f"copies {COPIES}"] if looked_for(source) else []
    question = [FORMAT, source.spec.model_dump(mode="json"), files, source.facts, tokenizer.identity, *reading]
    text = json.dumps(question, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _made(root: Path, key: str, source: Source, tokenizer: Tokenizer, progress: bool) -> Corpus:
    """The corpus, made now or meanwhile by another process."""
    from filelock import FileLock

    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            found = _open(root / key)  # another process may have made it while this one waited
            if found is None:
                _make(root, key, source, tokenizer, progress)
                found = _open(root / key)
    except OSError as error:
        raise Unwritable(
            root,
            error,
            f"cannot write the prepared data to {root}: {error.strerror or error}; set MINIWIN_CACHE to a "
            "folder that can be written and has room",
        ) from None
    assert found is not None, "a corpus just written does not match its own hashes"
    return found


def _open(folder: Path) -> Corpus | None:
    """The corpus in a folder. None if it is not there, or not as it was written."""
    try:
        record = read_json(folder / "corpus.json", names=True)
        splits = {}
        for side in record["files"]:
            path, want = folder / f"{side}.npy", record["files"][side]
            stat = path.stat()
            # Hashing reads the whole file. It is left out where size and time are as they were written.
            if stat.st_size != want["size"] or (
                stat.st_mtime_ns != want["mtime_ns"] and sha256_file(path) != want["sha256"]
            ):
                return None
            splits[side] = np.load(path, mmap_mode="r", allow_pickle=False)
        rows = ChatRows(splits["train"], splits[COUNTED], splits[STARTS]) if STARTS in splits else None
        train, valid, test = splits["train"], splits["valid"], splits.get("test")
        return Corpus(train, valid, record["fingerprint"], record["info"], rows, test=test)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(root: Path, key: str, source: Source, tokenizer: Tokenizer, progress: bool) -> None:
    """Write the corpus into a temporary folder, and rename the folder into place. The caller holds the lock."""
    _remove_temporary(root, key)
    folder = root / f"{key}.{os.getpid()}.tmp"
    folder.mkdir()
    try:
        _write(folder, source, tokenizer, progress)
        if (root / key).exists():
            move(root / key, folder.with_suffix(".old.tmp"))
        move(folder, root / key)
    finally:
        _remove_temporary(root, key)


def _remove_temporary(root: Path, key: str) -> None:
    """Remove temporary folders, a killed process's too: while we hold the lock, nobody else works on this key."""
    for rest in root.glob(f"{key}.*.tmp"):
        remove_tree(rest)


def _write(folder: Path, source: Source, tokenizer: Tokenizer, progress: bool) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 65536 else "<u4")
    sides = source.sides
    content = {side: hashlib.sha256() for side in sides}
    counts = {side: {"documents": 0, "bytes": 0} for side in sides}
    copies = 0

    def pieces() -> Iterator[Piece]:
        nonlocal copies
        known = seen(source, bar) if looked_for(source) else frozenset()
        for side, text, where in source.documents():
            raw = text.encode("utf-8")
            content[side].update(len(raw).to_bytes(8, "big") + raw)
            bar(len(raw))
            if side == "test" and digest(raw) in known:
                copies += 1
                continue
            counts[side]["documents"] += 1
            counts[side]["bytes"] += len(raw)
            parts = [text] if where else _cut(text)
            for place, part in enumerate(parts, 1):
                yield Piece(side, part, place == len(parts), where)

    separator = np.array([tokenizer.separator])
    encode = _encoder(source, tokenizer)
    with ExitStack() as stack:
        bar = stack.enter_context(_progress_bar(source.bytes * (2 if looked_for(source) else 1), progress))
        types: dict[str, np.dtype[Any]] = dict.fromkeys(sides, dtype)
        types |= CHATS if source.chat_format is not None else {}
        writers = {side: stack.enter_context(_IdWriter(folder / f"{side}.npy", kind)) for side, kind in types.items()}
        for batch in _batches(pieces(), BATCH):
            for piece, (ids, counted) in zip(batch, encode(batch), strict=True):
                if counted is not None and piece.side == "train":  # where chats begin and end is kept beside the ids
                    writers[STARTS].add(np.array([writers["train"].count]))
                    writers[COUNTED].add(counted)
                writers[piece.side].add(ids)
                if piece.last and (counted is None or piece.side != "train"):
                    writers[piece.side].add(separator)
        if STARTS in writers:
            writers[STARTS].add(np.array([writers["train"].count]))
        for side in sides:
            counts[side]["tokens"] = writers[side].count
            if writers[side].count == 0:
                raise UserError(_empty(source, side, copies))
        files = {name: writer.finish() for name, writer in writers.items()}
    chats = [] if source.chat_format is None else [source.facts]
    fingerprint = hashlib.sha256(
        json.dumps([FORMAT, tokenizer.identity, *(content[side].hexdigest() for side in sides), *chats]).encode()
    ).hexdigest()
    info: dict[str, Any] = {
        "source": source.spec.source,
        "files": len(source.files),
        "bytes": sum(count["bytes"] for count in counts.values()),
        "tokens": sum(count["tokens"] for count in counts.values()),
        **{f"{side}_{what}": number for side in sides for what, number in counts[side].items()},
        "tokenizer": tokenizer.name,
        **source.facts,
    }
    if copies:
        info |= {"test_copies_left_out": copies}
    if source.replaced.count:
        info |= {"replaced": source.replaced.count, "replaced_first": source.replaced.first}
    record = {"format": FORMAT, "fingerprint": fingerprint, "files": files, "info": info}
    write_flushed(folder / "corpus.json", json.dumps(record, indent=1))


def _encoder(source: Source, tokenizer: Tokenizer) -> Callable[[Sequence[Piece]], Iterable[Encoded]]:
    if source.chat_format is not None:
        assert isinstance(source.spec, ChatData)
        encoder = ChatEncoder(source.chat_format, tokenizer, source.spec.loss)
        return lambda pieces: encoder.encode([(piece.where, piece.text) for piece in pieces])
    if not isinstance(source.spec, TaskData):
        return lambda pieces: ((ids, None) for ids in tokenizer.encode_batch([piece.text for piece in pieces]))
    table = character_ids(tokenizer)
    return lambda pieces: ((table[np.frombuffer(piece.text.encode("ascii"), dtype=np.uint8)], None) for piece in pieces)


def _empty(source: Source, side: str, copies: int) -> str:
    if side == "test" and copies:
        return (
            f"data: no text for the test: {plural(copies, 'document')} kept back, all with text of train or valid; "
            "expected text that is nowhere else: give more, or name some in test_paths"
        )
    if isinstance(source.spec, JsonlData | ChatData | TableData) and side != "train":
        how = f"give more rows, a larger {side}_fraction, or {side}_paths"
    else:
        how = "give more text" if side == "train" else f"give more text, or name some in {side}_paths"
    every = "both" if len(source.sides) == 2 else "all three"
    return f"data: no text on the {side} side of {len(source.files)} files; expected some on {every}: {how}"


class _IdWriter:
    """Writes a .npy file whose length is only known at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path, self.dtype, self.count = path, dtype, 0
        self._file = path.open("wb")
        self._header()
        self._start = self._file.tell()

    def __enter__(self) -> _IdWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, ids: np.ndarray) -> None:
        self._file.write(ids.astype(self.dtype).tobytes())
        self.count += len(ids)

    def finish(self) -> dict[str, Any]:
        """Complete the file. Returns its size, time and hash, which `_open` compares with."""
        self._file.seek(0)
        self._header()
        assert self._file.tell() == self._start, "numpy leaves room for a growing length in its header"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        stat = self.path.stat()
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(self.path)}

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _cut(text: str) -> list[str]:
    """Pieces of PIECE to 2 PIECE characters, cut after a line end if there is one: few tokens span a line end."""
    parts, start = [], 0
    while len(text) - start > 2 * PIECE:
        stop = text.find("\n", start + PIECE, start + 2 * PIECE) + 1 or start + 2 * PIECE
        parts.append(text[start:stop])
        start = stop
    return [*parts, text[start:]]


def _batches(pieces: Iterator[Piece], size: int) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@contextmanager
def _progress_bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr. Yields the function that is told how many bytes were read."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("preparing data"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.update(task, advance=count)
