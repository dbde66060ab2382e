"""The files of a prepared corpus: written once, and opened as memory maps.

    train.npy  valid.npy  test.npy      ids, uint16 for vocabularies up to 65536, uint32 above
    train.counted.npy  train.starts.npy of chats: which ids are counted, and where chats begin
    valid.counted.npy  test.counted.npy likewise
    corpus.json                         what it is, and how big and what hash each file has

One process writes a corpus while others wait, and a rename puts it under its key. A corpus that does not match its own
hashes is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from miniwin.data.chat_rows import ChatRows
from miniwin.data.chats import ChatEncoder
from miniwin.data.copies import digest, looked_for, seen
from miniwin.data.corpus import Corpus
from miniwin.data.id_writer import IdWriter
from miniwin.data.sources import Source
from miniwin.data.tasks import character_ids
from miniwin.display.formats import plural
from miniwin.files.hashing import sha256_file
from miniwin.files.json_files import read_json
from miniwin.files.writing import Unwritable, move, remove_tree, write_flushed
from miniwin.specs import UserError
from miniwin.specs.data import ChatData, JsonlData, TableData, TaskData
from miniwin.tokenizer import Tokenizer

FORMAT = 1
PIECE = 1 << 14  # characters that the tokenizer gets in one piece: a whole novel would take minutes and gigabytes
BATCH = 256  # pieces that the tokenizer gets at once, to share out among its threads
COUNTED = ".counted"  # of chats, behind the name of a side
STARTS = "train.starts"  # the end of the last chat included

Encoded = tuple[np.ndarray, np.ndarray | None]  # ids, and of a chat which of them are counted


class Piece(NamedTuple):
    """A piece of a document. last: whether the document ends with it. where: see Document."""

    side: str
    text: str
    last: bool
    where: str


def made(root: Path, key: str, source: Source, tokenizer: Tokenizer, progress: bool) -> Corpus:
    """The corpus, made now or meanwhile by another process."""
    from filelock import FileLock

    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            found = open_corpus(root / key)  # another process may have made it while this one waited
            if found is None:
                _make(root, key, source, tokenizer, progress)
                found = open_corpus(root / key)
    except OSError as error:
        raise Unwritable(
            root,
            error,
            f"cannot write the prepared data to {root}: {error.strerror or error}; set MINIWIN_CACHE to a "
            "folder that can be written and has room",
        ) from None
    assert found is not None, "a corpus just written does not match its own hashes"
    return found


def open_corpus(folder: Path) -> Corpus | None:
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
        rows = ChatRows(splits["train"], splits[f"train{COUNTED}"], splits[STARTS]) if STARTS in splits else None
        train, valid, test = splits["train"], splits["valid"], splits.get("test")
        counted = {side: splits[side + COUNTED] for side in ("valid", "test") if side + COUNTED in splits}
        return Corpus(train, valid, record["fingerprint"], record["info"], rows, test=test, counted=counted)
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

    separator, no = np.array([tokenizer.separator]), np.zeros(1, dtype=np.uint8)
    encode = _encoder(source, tokenizer)
    with ExitStack() as stack:
        bar = stack.enter_context(_progress_bar(source.bytes * (2 if looked_for(source) else 1), progress))
        types: dict[str, np.dtype[Any]] = dict.fromkeys(sides, dtype)
        if source.chat_format is not None:
            types |= {side + COUNTED: np.dtype("|u1") for side in sides} | {STARTS: np.dtype("<i8")}
        writers = {side: stack.enter_context(IdWriter(folder / f"{side}.npy", kind)) for side, kind in types.items()}
        for batch in _batches(pieces(), BATCH):
            for piece, (ids, counted) in zip(batch, encode(batch), strict=True):
                if counted is not None:
                    if piece.side == "train":  # where chats begin and end is kept beside the ids
                        writers[STARTS].add(np.array([writers["train"].count]))
                    writers[piece.side + COUNTED].add(counted)
                writers[piece.side].add(ids)
                if piece.last and (counted is None or piece.side != "train"):
                    writers[piece.side].add(separator)
                    if counted is not None:
                        writers[piece.side + COUNTED].add(no)
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
