"""Batches from a long array of token ids. Each is a pure function of (split, step, batch_size, seq_len, seed).

An epoch cuts the split into windows of seq_len + 1 ids that overlap by one: every token is an input once and a target
once. The first window starts at a seeded offset. The windows come in a seeded order. The split is read as a ring: it
ends with a document separator, so its beginning follows its end as one more document.

An epoch leaves out len(split) modulo seq_len tokens, at another place in every epoch.

There is no state. So a run resumes by starting at another step, and workers cannot change what a step sees.

Shapes: B batch_size, N seq_len.
"""

from __future__ import annotations

import hashlib
import mmap
import signal
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from miniwin.specs import UserError

Batch = tuple[torch.Tensor, torch.Tensor]


def batch_at(split: np.ndarray, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch:
    """(inputs, targets) of one step, (B, N) int64 each. A target is the token after its input.

    Raises:
        UserError: the split is too short for one sequence.
    """
    windows = windows_per_epoch(split, seq_len)
    rows = []  # of (N + 1,)
    for number in range(step * batch_size, (step + 1) * batch_size):  # windows are numbered across epochs
        epoch, place = divmod(number, windows)
        order, offset = _epoch(seed, epoch, windows, len(split))
        rows.append(_ring(split, (offset + int(order[place]) * seq_len) % len(split), seq_len + 1))
    ids = torch.from_numpy(np.stack(rows).astype(np.int64))  # (B, N + 1)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()  # (B, N), (B, N)


def document_numbers(inputs: torch.Tensor, separator: int) -> torch.Tensor:
    """ids (B, N) -> (B, N) int64: the number of each token's document. In each row the numbers grow from left to right.

    As an input, a separator is the first token of a document: the next token is predicted from the separator alone, as
    for an empty prompt. As a target, a separator ends the document before.
    """
    return (inputs == separator).long().cumsum(1)


def windows_per_epoch(split: np.ndarray, seq_len: int) -> int:
    """How many windows of seq_len one epoch has.

    Raises:
        UserError: the split is too short for one sequence.
    """
    if len(split) <= seq_len:
        raise UserError(
            f"too little data: the split has {len(split)} tokens, and one sequence of seq_len {seq_len} "
            f"needs {seq_len + 1}; give more text or a smaller seq_len"
        )
    return len(split) // seq_len


def loader(
    split: np.ndarray,
    *,
    start_step: int,
    num_steps: int,
    batch_size: int,
    seq_len: int,
    seed: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """`batch_at` of `num_steps` steps from `start_step` on, in order. `workers` processes read ahead; 0: none does."""
    windows_per_epoch(split, seq_len)  # raises a user's mistake here, not in a worker
    steps = _Steps(split, start_step, num_steps, {"batch_size": batch_size, "seq_len": seq_len, "seed": seed})
    if workers == 0:
        return (steps[place] for place in range(num_steps))
    # A generator of its own, because DataLoader draws a seed for its workers. The global generator belongs to the
    # training run.
    loading: DataLoader[Batch] = DataLoader(
        steps, batch_size=None, num_workers=workers, worker_init_fn=_init_worker, generator=torch.Generator()
    )
    return iter(loading)


class _Steps(Dataset[Batch]):
    """Item i is the batch of step start + i."""

    def __init__(self, split: np.ndarray, start: int, count: int, settings: dict[str, int]) -> None:
        self._split, self._start, self._count, self._settings = split, start, count, settings

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Batch:
        return batch_at(self._split, self._start + place, **self._settings)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        split = self._split
        # Pickled as it is, a memory map sends the whole corpus to every worker. Its place on disk is enough.
        # A slice of a map is pickled as it is: its `offset` is that of the whole map.
        if isinstance(split, np.memmap) and isinstance(split.base, mmap.mmap):
            state["_split"] = (str(split.filename), split.dtype, split.shape, split.offset)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._split, tuple):
            filename, dtype, shape, offset = self._split
            self._split = np.memmap(filename, dtype=dtype, mode="r", shape=shape, offset=offset)


def _init_worker(_: int) -> None:
    # Ctrl-C reaches the whole process group. The run decides what it means, and needs batches until it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The worker inherited the run's handler by fork. Here the handler would only keep the worker from being ended.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@lru_cache(maxsize=8)
def _epoch(seed: int, epoch: int, windows: int, length: int) -> tuple[np.ndarray, int]:
    """(the order of an epoch's windows (windows,), the offset of the first one in the split)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:16], "little")
    # Raw bits and a stable sort stay the same from version to version of numpy. Its shuffles do not.
    draws = np.random.Philox(key=key).random_raw(windows + 1)
    return np.argsort(draws[1:], kind="stable"), int(draws[0] % np.uint64(length))


def _ring(split: np.ndarray, start: int, count: int) -> np.ndarray:
    """(count,) ids from `start` on; the beginning of the split follows its end."""
    part = split[start : start + count]
    return part if len(part) == count else np.concatenate([part, split[: count - len(part)]])
