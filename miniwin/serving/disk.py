"""States of conversations in a folder, one safetensors file each, so that they outlive the server.

A folder belongs to one model: its name is made of the digest of the weights, the hash of the spec and the dtype of the
cache. A file has the name that its ids have, and a digest of its content. A file that is not what its name says is
removed with a line in the log, and never used. The files used longest ago go when the folder is full.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from miniwin.blocks import Cache
from miniwin.blocks.messages.escaping import escaped_line
from miniwin.files.tensor_files import readable, save_tensors
from miniwin.files.writing import replacing, said_if_unwritable
from miniwin.specs import UserError

LOG = logging.getLogger(__name__)
FORMAT, SUFFIX, IDS = 1, ".safetensors", "ids"


@dataclass(eq=False)
class Stored:
    """ids (N,) int32."""

    ids: np.ndarray
    path: Path
    size: int


class DiskStates:
    """fresh: makes an empty cache of the model."""

    def __init__(self, folder: Path, most: int, key: str, fresh: Callable[[], Cache]) -> None:
        """most: bytes of all files.

        Raises:
            UserError: the folder cannot be written, or another server uses it.
        """
        self.key, self.folder, self.most, self._fresh = key, folder / key, most, fresh
        with said_if_unwritable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / "lock", thread_local=False)  # another thread lets it go
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise UserError(
                    f"{self.folder}: another server keeps its states there; stop it, or give another --cache-dir"
                ) from None
        for left in self.folder.glob(".*.tmp"):  # of a server that was killed; nobody else writes here
            with suppress(OSError):
                left.unlink()
        self.states: list[Stored] = []  # the one used last is the last
        for path in sorted(self.folder.glob(f"*{SUFFIX}"), key=_used):
            if (found := self._known(path)) is not None:
                self.states.append(found)
        self._shrink()

    def close(self) -> None:
        self._lock.release()

    @property
    def nbytes(self) -> int:
        return sum(state.size for state in self.states)

    def longest(self, wanted: np.ndarray, least: int) -> Stored | None:
        """The state that holds the longest beginning of the wanted ids, more than `least` and not all of them."""
        fitting = [one for one in self.states if least < len(one.ids) < len(wanted)]
        fitting = [one for one in fitting if common(one.ids, wanted) == len(one.ids)]
        return max(fitting, key=lambda one: len(one.ids), default=None)

    def write(self, ids: np.ndarray, cache: Cache) -> None:
        """Write a state. A disk that refuses is a line in the log: the state will be computed again."""
        path = self.folder / f"{self._name(ids)}{SUFFIX}"
        tensors = {name: tensor.cpu().contiguous() for name, tensor in cache.held().items()}
        tensors[IDS] = torch.from_numpy(ids)
        if sum(t.nbytes for t in tensors.values()) > self.most:
            return
        about = {"format": FORMAT, "key": self.key, "tokens": len(ids), "digest": _digest(tensors)}
        try:
            with replacing(path) as temporary:
                save_tensors(tensors, temporary, {"state": json.dumps(about)})
            size = path.stat().st_size
        except (OSError, UserError) as error:
            LOG.warning("a state could not be written: %s", escaped_line(str(error)))
            return
        self.states = [one for one in self.states if one.path != path] + [Stored(ids, path, size)]
        self._shrink()

    def read(self, state: Stored) -> Cache | None:
        """The cache of a state; None, and the file is removed, if it is damaged."""
        try:
            with readable(state.path) as name, safe_open(name, framework="pt") as file:
                about = json.loads((file.metadata() or {})["state"])
                tensors = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118
            if about["digest"] != _digest(tensors):
                raise ValueError("its content is not what was written")
            if not np.array_equal(tensors.pop(IDS).numpy(), state.ids):
                raise ValueError("it holds other ids")
            cache = self._filled(tensors, len(state.ids))
            os.utime(state.path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            self._drop(state.path, error)
            self.states.remove(state)
            return None
        self.states.remove(state)
        self.states.append(state)
        return cache

    def _filled(self, tensors: dict[str, Tensor], tokens: int) -> Cache:
        cache = self._fresh()
        cache.reserve(tokens)
        cache.set_length(tokens)
        room = cache.held()
        for name in {*room, *tensors}:
            want, got = ((t.shape, t.dtype) if t is not None else None for t in (room.get(name), tensors.get(name)))
            if want != got:
                raise ValueError(f"{name}: got {got}, expected {want}")
            room[name].copy_(tensors[name])
        return cache

    def _known(self, path: Path) -> Stored | None:
        """What a file says that it holds; None, and it is removed, if its name says otherwise."""
        try:
            with readable(path) as name, safe_open(name, framework="np") as file:
                about = json.loads((file.metadata() or {})["state"])
                ids = file.get_tensor(IDS)
            if about["format"] != FORMAT or about["key"] != self.key or ids.dtype != np.int32 or ids.ndim != 1:
                raise ValueError("it is of another model or version")
            if path.name != f"{self._name(ids)}{SUFFIX}" or path.is_symlink():
                raise ValueError("its name is not that of its ids")
            return Stored(ids, path, path.stat().st_size)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._drop(path, error)
            return None

    def _name(self, ids: np.ndarray) -> str:
        return sha256(self.key.encode() + ids.tobytes()).hexdigest()

    def _shrink(self) -> None:
        while self.states and self.nbytes > self.most:
            self.states.pop(0).path.unlink(missing_ok=True)

    def _drop(self, path: Path, why: Exception) -> None:
        LOG.warning("%s: dropped: %s", escaped_line(str(path)), escaped_line(str(why))[:300])
        with suppress(OSError):
            path.unlink()


def common(a: np.ndarray, b: np.ndarray) -> int:
    """How many ids two texts have in common, from the first on."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all tensors, with their names, dtypes and shapes."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
