"""The tensors of a checkpoint in shards: each process of a run has written its own part of each tensor.

The shards lie in a folder beside checkpoint.pt, which holds all else and names the folder. There are two such folders,
written in turns, and never the one that checkpoint.pt names. So replacing checkpoint.pt, in one step, is what makes a
new set of shards the checkpoint, and the set before it stays whole until then.

The files are safetensors, written and read by torch.distributed.checkpoint. Its own format has a pickle, which can run
code. Any number of processes can read what any number wrote.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniwin.files.writing import Unwritable, flush

MARK = "tensor"  # begins the tuple that stands in a tensor's place: (MARK, key, shape, dtype)


def taken_apart(
    state: Any, wanted: Callable[[Tensor], bool] = lambda tensor: True, key: str = ""
) -> tuple[Any, dict[str, Tensor]]:
    """(the state with marks in place of the wanted tensors, these tensors by key: model/norm.weight)."""
    if isinstance(state, Tensor) and wanted(state):
        return (MARK, key, tuple(state.shape), state.dtype), {key: state}
    if not isinstance(state, dict | list):
        return state, {}
    tensors: dict[str, Tensor] = {}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    parts = {}
    for name, value in items:
        parts[name], found = taken_apart(value, wanted, f"{key}/{name}".lstrip("/"))
        tensors |= found
    return (parts if isinstance(state, dict) else list(parts.values())), tensors


def is_mark(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 4 and value[0] == MARK


def marks(skeleton: Any) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
    """(key, shape, dtype) of the tensors that were taken out of a state."""
    if is_mark(skeleton):
        yield skeleton[1:]
    elif isinstance(skeleton, dict | list):
        for value in skeleton.values() if isinstance(skeleton, dict) else skeleton:
            yield from marks(value)


def put_together(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The state that `taken_apart` took apart."""
    if is_mark(skeleton):
        return tensors[skeleton[1]]
    if isinstance(skeleton, dict):
        return {name: put_together(value, tensors) for name, value in skeleton.items()}
    return [put_together(value, tensors) for value in skeleton] if isinstance(skeleton, list) else skeleton


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write this process's part of each tensor to `folder`, which is empty. Called by all processes together.

    Raises:
        Unwritable: the system refused one of the processes.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

    try:
        with _first_failure():
            save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except OSError as error:
        raise Unwritable(folder, error) from None
    flush(folder)


def read_shards(folder: Path, room: dict[str, Tensor], together: bool) -> None:
    """Fill the tensors of `room`, whole ones or sharded ones, from the shards in `folder`.

    together: all processes call this at the same moment, as they must where the tensors are sharded.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    reader = HuggingFaceStorageReader(str(folder))
    held: Any = reader.read_metadata().state_dict_metadata
    for key, tensor in room.items():  # torch would leave the part of a file that is gone as it is
        found = sum(chunk.sizes.numel() for chunk in held[key].chunks) if key in held else 0
        if found != tensor.numel():
            raise ValueError(f"{key} has {found:,} numbers there; expected {tensor.numel():,}")
    with warnings.catch_warnings(), _first_failure():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # said of a single process
        load(room, storage_reader=reader, no_dist=not together)


@contextmanager
def _first_failure() -> Iterator[None]:
    """Turn what torch says of several processes, which is no Exception, into the error of the first one that failed."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None
