"""The teacher's final hidden states on disk, so that a second run with the same rows needs no pass of the teacher.

    DIR/<what the states depend on, hashed>/about.json
                                           /<what the teacher reads, hashed>.safetensors        (b, N, C') of one pass

A folder is for one teacher (sha256 of its weights, hash of its spec), one dtype, and one way of computing. A file is
for the rows of a pass: its name is a hash of their token ids and documents, so whatever changes them (text, tokenizer,
seq_len, batch_size, packing, seed) names another file. A pass is kept as a whole, since products of other shapes round
differently: a run computes the same bits with and without the cache.

States are kept in the dtype in which the teacher's head takes them: nothing is lost. No logits are kept, which would be
V / C' times as much. A file is written aside and renamed. One that cannot be read is computed again.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniwin.display.formats import decimal_bytes
from miniwin.files.folders import cache_folder
from miniwin.files.hashing import sha256_json
from miniwin.files.writing import replacing, said_if_unwritable, write_json
from miniwin.specs import UserError

STATES, ABOUT = "states", "about.json"
FIELD = "distill.cache"


class StateCache:
    """States of one teacher. where: `distill.cache`. about: what they depend on besides what the teacher reads.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, where: bool | str, about: dict[str, Any]) -> None:
        root = Path(where) if isinstance(where, str) else cache_folder() / "teachers"
        self.folder = root / sha256_json(about)[:32]
        self.about = about

    def open(self, needed: int) -> None:
        """Make the folder. needed: bytes of the passes that the run still has before it, at most.

        Raises:
            UserError: the folder cannot be made, or the disk has no room for them.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / ABOUT).exists():
                write_json(self.folder / ABOUT, self.about)
            there = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise UserError(
                f"{FIELD}: {self.folder} cannot be made or read ({error.strerror or error}); give another folder, or "
                "leave out cache"
            ) from None
        if needed - there > free:
            raise UserError(
                f"{FIELD}: the teacher's states of this run take {decimal_bytes(needed)}, {decimal_bytes(there)} are "
                f"there, and {decimal_bytes(free)} are free in {self.folder.parent}; make room, give a folder on "
                "another disk, or leave out cache"
            )

    def path(self, inputs: Tensor, documents: Tensor | None) -> Path:
        """The file of a pass. inputs (b, N): token ids. documents (b, N): the number of each token's document."""
        read = hashlib.sha256(repr(tuple(inputs.shape)).encode())
        for ids in (inputs, documents):
            read.update(b"-" if ids is None else ids.to("cpu", torch.int64).contiguous().numpy().tobytes())
        return self.folder / f"{read.hexdigest()[:40]}.safetensors"

    def get(self, path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """The states in a file; None if it is not there, or no such file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            states = load(path.read_bytes())[STATES]
        except (OSError, SafetensorError, KeyError):
            return None
        return states if tuple(states.shape) == shape and states.dtype == dtype else None

    def put(self, path: Path, states: Tensor) -> None:
        """Keep the states of a pass.

        Raises:
            Unwritable: the system refused it.
        """
        from safetensors.torch import save

        with said_if_unwritable(path), replacing(path) as temporary:
            temporary.write_bytes(save({STATES: states.cpu().contiguous()}))
