"""What a GGUF file says it holds: its metadata, and the name, shape, type and place of every tensor.

    "GGUF", version, number of tensors, number of fields
    fields    key, type, value: a number, a string, or an array of these
    tensors   name, dimensions (the fastest first), type, offset in the data
    padding to general.alignment; the data

The file may come from anywhere. So each length and count is compared with what is left of the file before anything is
read or allocated, an array may not hold arrays, and no tensor may leave the file or overlap another. The reader of the
`gguf` package trusts all of them. Source: ggml's docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.gguf.library import readable_kinds

MAGIC, VERSIONS = b"GGUF", (2, 3)
LARGEST = 256 << 20  # bytes of a header; large vocabularies have 20 MB
MOST_ITEMS = 4_000_000  # of all arrays; large vocabularies, their merges and scores have 1,300,000
MOST_FIELDS, MOST_TENSORS, MOST_DIMENSIONS = 65_536, 262_144, 4
LONGEST_KEY, LONGEST_NAME, LONGEST_TEXT = 65_535, 256, 16 << 20  # bytes
STRING, ARRAY, FLOAT32, BOOL = 8, 9, 6, 7
NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
FETCH = "the file is damaged or cut short: fetch it again"


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. shape: as torch has it, the slowest dimension first. kind: number of its type in ggml."""

    name: str
    shape: tuple[int, ...]
    kind: int
    path: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """The metadata of a file, and its tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def said(value: Any) -> str:
    """A value of metadata for a message."""
    return f"an array of {len(value)}" if isinstance(value, list) else shown(value)


def read_header(path: Path) -> Header:
    """Read and check the header.

    Raises:
        UserError: the file is no GGUF file, is damaged, or has a tensor of a type that cannot be read.
    """
    try:
        with path.open("rb", buffering=1 << 20) as file:
            return _read(path, _Cursor(path, file))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(path: Path, cursor: _Cursor) -> Header:
    if cursor.size < 4 or cursor.take(4, "the first bytes") != MAGIC:
        raise UserError(f"{path}: does not begin with GGUF, so it is no GGUF file; {FETCH}")
    version = cursor.number("<I", "the version")
    if version not in VERSIONS:
        hint = "a file for machines with the other byte order" if version & 0xFFFF == 0 else "expected 2 or 3"
        raise UserError(f"{path}: GGUF version {version}; {hint}; convert the model anew with a current llama.cpp")
    tensors = cursor.count("<Q", "tensors", 24, MOST_TENSORS)
    fields = cursor.count("<Q", "fields of metadata", 13, MOST_FIELDS)
    metadata: dict[str, Any] = {}
    for _ in range(fields):
        key = cursor.text("the key of a field", LONGEST_KEY)
        if key in metadata:
            raise UserError(f"{path}: metadata has {shown(key)} twice; which one is meant cannot be known")
        metadata[key] = _value(cursor, f"metadata {shown(key)}")
    found = [_tensor(path, cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise UserError(f"{path}: general.alignment: got {said(alignment)}; expected a power of two")
    start = -(-cursor.at // alignment) * alignment
    return Header(path, metadata, _placed(path, found, start, cursor.size, alignment))


def _value(cursor: _Cursor, what: str) -> Any:
    kind = cursor.number("<I", what)
    if kind == STRING:
        return cursor.text(what, LONGEST_TEXT)
    if kind == ARRAY:
        return _array(cursor, what)
    (value,) = cursor.numbers(kind, 1, what)
    # The shortest decimal number that is this float32: 1e-05, as its author wrote it, not 9.99999974738e-06.
    return float(str(np.float32(value))) if kind == FLOAT32 else value


def _array(cursor: _Cursor, what: str) -> Any:
    kind = cursor.number("<I", what)
    if kind == ARRAY:
        raise UserError(f"{cursor.path}: {what} is an array of arrays, which llama.cpp does not write; {FETCH}")
    count = cursor.number("<Q", what)
    cursor.items += count
    if cursor.items > MOST_ITEMS:
        raise UserError(f"{cursor.path}: {what} has {count:,} items; expected at most {MOST_ITEMS:,} in all arrays")
    if kind != STRING:
        return cursor.numbers(kind, count, what)
    cursor.room(8 * count, what)
    return [cursor.text(what, LONGEST_TEXT) for _ in range(count)]


def _tensor(path: Path, cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text("the name of a tensor", LONGEST_NAME)
    what = f"tensor {shown(name)}"
    dimensions = cursor.number("<I", what)
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise UserError(f"{path}: {what} has {dimensions} dimensions; expected 1 to {MOST_DIMENSIONS}; {FETCH}")
    shape = tuple(reversed([cursor.number("<Q", what) for _ in range(dimensions)]))
    return name, shape, cursor.number("<I", what), cursor.number("<Q", what)


def _placed(
    path: Path, found: list[tuple[str, tuple[int, ...], int, int]], start: int, end: int, alignment: int
) -> dict[str, TensorInfo]:
    """The tensors with their places in the file, each within it and none upon another."""
    kinds = readable_kinds()
    placed: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in found:
        what = f"{path}: tensor {shown(name)}"
        if name in placed:
            raise UserError(f"{what} is there twice; {FETCH}")
        if kind not in kinds:
            known = ", ".join(sorted(one for one, _, _ in kinds.values()))
            raise UserError(f"{what} has type {kind}, which is not known here; known are {known}")
        named, values, size = kinds[kind]
        count = math.prod(shape)
        if count < 1 or shape[-1] % values:
            raise UserError(
                f"{what} has shape {shown(list(shape))}; {named} needs rows of a multiple of {values} numbers; {FETCH}"
            )
        size = count // values * size
        if offset % alignment or start + offset + size > end:
            raise UserError(f"{what} is said to be at {offset}, with {size} bytes: not within the file; {FETCH}")
        placed[name] = TensorInfo(name, shape, kind, path, start + offset, size)
    before: TensorInfo | None = None
    for info in sorted(placed.values(), key=lambda one: one.offset):
        if before is not None and info.offset < before.offset + before.size:
            raise UserError(f"{path}: tensors {shown(before.name)} and {shown(info.name)} overlap; {FETCH}")
        before = info
    return placed


class _Cursor:
    """Reads a file from the front to the back, and never more than it holds."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self.size = file.seek(0, 2)
        file.seek(0)
        self.at = 0
        self.items = 0

    def room(self, count: int, what: str) -> None:
        """Raise UserError unless so many bytes are left."""
        if count > self.size - self.at:
            left = self.size - self.at
            raise UserError(f"{self.path}: {what}: needs {count} bytes, and the file has {left} more; {FETCH}")
        if self.at + count > LARGEST:
            raise UserError(f"{self.path}: {what}: the header is larger than {LARGEST >> 20} MiB; {FETCH}")

    def take(self, count: int, what: str) -> bytes:
        self.room(count, what)
        found = self._file.read(count)
        if len(found) != count:
            raise UserError(f"{self.path}: {what}: the file became shorter while it was read")
        self.at += count
        return found

    def number(self, form: str, what: str) -> int:
        (found,) = struct.unpack(form, self.take(struct.calcsize(form), what))
        return int(found)

    def count(self, form: str, what: str, least: int, most: int) -> int:
        """How many of something follow. least: bytes that each takes at least."""
        found = self.number(form, f"the number of {what}")
        if found > most or found * least > self.size - self.at:
            raise UserError(f"{self.path}: says that it has {found:,} {what}, which cannot be; {FETCH}")
        return found

    def text(self, what: str, longest: int) -> str:
        length = self.number("<Q", what)
        if length > longest:
            raise UserError(
                f"{self.path}: {what} is said to have {length:,} bytes; expected at most {longest:,}; {FETCH}"
            )
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise UserError(f"{self.path}: {what} is not UTF-8; {FETCH}") from None

    def numbers(self, kind: int, count: int, what: str) -> list[Any]:
        if kind not in NUMBERS:
            raise UserError(f"{self.path}: {what} has type {kind}, which GGUF does not have; {FETCH}")
        form = np.dtype(NUMBERS[kind])
        self.room(count * form.itemsize, what)
        found = np.frombuffer(self.take(count * form.itemsize, what), dtype=form)
        return list((found != 0 if kind == BOOL else found).tolist())
