"""Checkpoints that a crash cannot tear.

A checkpoint holds everything that the next step depends on and that is not a pure function of the step:
weights, optimizer moments, the state of the random number generators, and the smoothed loss. The data order
and the learning rate are functions of the step, so they need nothing.

A checkpoint is written under a temporary name, flushed to the disk, and renamed: the file under its own name is whole
at any moment. It is read with `weights_only=True`: tensors and plain values, never code.

The checkpoint of a model that is sharded over processes names a folder beside it, with the tensors (shards.py). That is
format 2, and all else is format 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniwin.files.writing import replacing
from miniwin.shards import marks, put_together, read_shards
from miniwin.specs.base import UserError

FORMAT = 1
SHARDED = 2
SHARDS = "shards"  # in a sharded checkpoint: the name of the folder with its tensors

Room = Callable[[str, tuple[int, ...], torch.dtype], Tensor]


def save_checkpoint(path: Path, state: dict[str, Any], shards: str | None = None) -> None:
    """Write `state` (tensors, numbers, text, lists and dictionaries of them) atomically.

    shards: the folder beside it that has the tensors for which `state` has marks.
    """
    header = {"format": FORMAT} if shards is None else {"format": SHARDED, SHARDS: shards}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({**header, **state}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk: torch then complains of a position in the file
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu", room: Room | None = None) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, put together if it is in shards.

    room: given the key, the shape and the type of a tensor that is in shards, where to put it. All processes then call
    this together. By default the tensors are whole, and on the device of `map_location`.

    Raises:
        UserError: the file or a shard cannot be read, or is not a checkpoint of this format.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    with _said_if_damaged(path):
        state = torch.load(path, map_location=map_location, weights_only=True, mmap=room is not None)
    if not isinstance(state, dict) or state.get("format") not in (FORMAT, SHARDED):
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(
            f"{path} is a checkpoint of format {found!r}; this miniwin reads formats {FORMAT} and {SHARDED}"
        )
    if state["format"] == FORMAT:
        return state
    with _said_if_damaged(path.with_name(state[SHARDS])):
        make = room or (lambda key, shape, dtype: torch.empty(shape, dtype=dtype, device=map_location))
        tensors = {key: make(key, shape, dtype) for key, shape, dtype in marks(state)}
        read_shards(path.with_name(state[SHARDS]), tensors, together=room is not None)
    whole: dict[str, Any] = put_together(state, tensors)
    return whole


def read_step(path: Path) -> int:
    """The step of a checkpoint, without its tensors.

    Raises:
        UserError: the file cannot be read, or is no checkpoint.
    """
    with _said_if_damaged(path):
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])


@contextmanager
def _said_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):  # these say nothing about the file
        raise
    except Exception as error:  # the kind of error depends on where the file is damaged
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint ({first}); expected what `miniwin train` wrote: "
            "train again with --fresh, or put back the original"
        ) from None


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's random number generators: the CPU's, and that of a CUDA device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `rng_state` gave. Generator states live on the CPU, also those for a CUDA device."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
