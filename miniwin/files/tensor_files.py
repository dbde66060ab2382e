"""Safetensors files, without two peculiarities of the library.

The library has an error of its own for a full disk; here it is an OSError, as everywhere. The library does not take a
path with bytes that are not UTF-8; such a file is read by its descriptor, and written by Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

_SYSTEM = re.compile(r"I/O error: (.*) \(os error (\d+)\)")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a new file. A full disk is an OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save, save_file

    if not _is_text(path):
        path.write_bytes(save(dict(tensors), metadata))
        return
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:
        said = _SYSTEM.search(str(error))
        if said is None:
            raise
        raise OSError(int(said[2]), said[1]) from None


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a file."""
    from safetensors.torch import load_file

    with readable(path) as name:
        return load_file(name, device=device)


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A path to an existing file that the library takes. It is valid while the block runs."""
    if _is_text(path):
        yield path
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield Path(f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _is_text(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
