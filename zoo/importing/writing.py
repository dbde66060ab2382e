"""Write what was imported: safetensors tensor by tensor, in a folder that appears whole or not at all.

The safetensors library writes all tensors at once, from memory. A converted model need never be in memory: names, types
and shapes are known before the first tensor is read, so the header is written first and each tensor as it comes, at its
place. Types with more bytes are first in the file, so that every number lies at a multiple of its size.

The format: the length of the header in 8 bytes, little-endian; the header, JSON with type, shape and offsets of every
tensor, padded with spaces to a multiple of 8; the tensors.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from miniwin.blocks.int8.weight import in_eight_bits
from miniwin.files.writing import flush, move, remove_tree
from miniwin.specs.base import UserError
from miniwin.weights import SCALE
from miniwin.zoo.importing.source import size

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8"}
PIECE = 1 << 22  # numbers that are rounded to eight bits at once


class TensorFile:
    """A safetensors file that is being written. layout: name, shape and type of every tensor."""

    def __init__(self, path: Path, layout: Sequence[tuple[str, tuple[int, ...], torch.dtype]]) -> None:
        self._places: dict[str, tuple[int, tuple[int, ...], torch.dtype]] = {}
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name, shape, dtype in sorted(layout, key=lambda one: -one[2].itemsize):
            end = at + size(shape) * dtype.itemsize
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
            self._places[name] = at, shape, dtype
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file = path.open("wb")
        self._start = self._file.write(len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        assert kind is not None or not self._places, list(self._places)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor of the layout, converted to the type that the file has for it."""
        assert self._places[name][1] == tuple(tensor.shape), (name, tuple(tensor.shape), self._places[name])
        self.write_pieces(name, [tensor])

    def write_pieces(self, name: str, pieces: Iterable[Tensor]) -> None:
        """The same, of the numbers in order, in pieces of any shape."""
        at, shape, dtype = self._places.pop(name)
        self._file.seek(self._start + at)
        count = 0
        for piece in pieces:
            plain = piece.to(dtype).contiguous().reshape(-1).view(torch.uint8)
            self._file.write(plain.numpy().data)
            count += piece.numel()
        assert count == size(shape), (name, count, shape)

    def write_in_eight_bits(self, name: str, pieces: Iterable[Tensor]) -> None:
        """A matrix in int8 and its scales, of which the layout has both. Each piece has whole rows."""
        columns = self._places[name][1][1]
        scales = []

        def values() -> Iterator[Tensor]:
            for piece in pieces:
                for rows in piece.reshape(-1, columns).split(max(1, PIECE // columns)):
                    eight, scale = in_eight_bits(rows)
                    scales.append(scale)
                    yield eight

        self.write_pieces(name, values())
        self.write(name + SCALE, torch.cat(scales))


def refuse_existing(folder: Path, option: str = "--to") -> None:
    """Raise UserError unless the folder is empty or does not exist. option: that names the folder."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.is_symlink() or folder.exists():
        raise UserError(f"{folder}: exists already; give {option} the name of a new folder, or remove this one")


@contextmanager
def appearing(folder: Path, option: str = "--to") -> Iterator[Path]:
    """A folder to write in. When the block ends well it is renamed to `folder`; otherwise it is removed.

    A process that is killed leaves its folder; the next import beside it removes that. A lock shows whether the owner
    of such a folder lives: the system releases the lock when the process dies, however it dies. option: that names the
    folder.

    Raises:
        UserError: the folder cannot be written, or was made by somebody else meanwhile.
    """
    folder = folder.absolute()
    made = _make_parents(folder.parent)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    lock = FileLock(_lock_of(part))
    try:
        _remove_abandoned(folder.parent)
        lock.acquire()  # before there is a folder that somebody could find unlocked
        part.mkdir()
        yield part
        for path in part.iterdir():
            flush(path)
        flush(part)
        refuse_existing(folder, option)
        with suppress(FileNotFoundError):
            folder.rmdir()  # an empty folder, which not every system replaces
        move(part, folder)
        made = []
        flush(folder.parent)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        remove_tree(part)
        lock.release()
        with suppress(OSError):
            _lock_of(part).unlink()
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _lock_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.lock")


def _remove_abandoned(parent: Path) -> None:
    """Remove what killed processes left. A folder without a lock stays: nobody can tell whose it is."""
    with suppress(OSError):
        for part in parent.iterdir():
            if _PART.fullmatch(part.name) and _lock_of(part).exists() and part.is_dir():
                with suppress(Timeout, OSError), FileLock(_lock_of(part), timeout=0):
                    remove_tree(part)
                    _lock_of(part).unlink()


def _make_parents(folder: Path) -> list[Path]:
    """Make the folder. Returns the folders that did not exist before, innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror or error}") from None
    return made
