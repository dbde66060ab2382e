"""A .npy file of token ids, written as they come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from miniwin.files.hashing import sha256_file


class IdWriter:
    """Writes a .npy file whose length is only known at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path, self.dtype, self.count = path, dtype, 0
        self._file = path.open("wb")
        self._header()
        self._start = self._file.tell()

    def __enter__(self) -> IdWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, ids: np.ndarray) -> None:
        self._file.write(ids.astype(self.dtype).tobytes())
        self.count += len(ids)

    def finish(self) -> dict[str, Any]:
        """Complete the file. Returns its size, time and hash, to compare with when it is opened."""
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
