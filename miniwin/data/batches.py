"""Batches from a long array of token ids, each a pure function of (split, step, batch_size, seq_len, seed).

An epoch cuts the split into windows of seq_len + 1 ids that overlap by one, so that every token is an input
once and a target once, starts them at a seeded offset, and goes through them in a seeded order. The split is
read as a ring (it ends with a document separator, so going on at its beginning is one more document
boundary); only the length modulo seq_len, fewer than seq_len tokens, is left out of an epoch, another stretch
in each.

No state means: resuming is starting at another step, and workers cannot change what a step sees.

B batch_size, N seq_len.
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
    """Inputs and targets of one step, (B, N) int64 each; targets are the inputs moved on by one token."""
    windows = windows_per_epoch(split, seq_len)
    rows = []
    for number in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(number, windows)
        order, offset = _epoch(seed, epoch, windows, len(split))
        rows.append(_ring(split, (offset + int(order[place]) * seq_len) % len(split), seq_len + 1))
    ids = torch.from_numpy(np.stack(rows).astype(np.int64))  # (B, N + 1)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def document_numbers(inputs: torch.Tensor, separator: int) -> torch.Tensor:
    """(B, N) ids -> (B, N) int64: numbers of the documents that each row's tokens belong to, growing.

    As an input a separator is a document's first token: what follows it is predicted from nothing else, as for an empty
    prompt. As a target it is the end of the document before.
    """
    return (inputs == separator).long().cumsum(1)


def windows_per_epoch(split: np.ndarray, seq_len: int) -> int:
    """How many sequences of seq_len one pass over the split has."""
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
    """`batch_at` of `num_steps` steps from `start_step` on, in order, read ahead by `workers` processes."""
    windows_per_epoch(split, seq_len)  # the user's mistake is raised here, not in a worker
    steps = _Steps(split, start_step, num_steps, {"batch_size": batch_size, "seq_len": seq_len, "seed": seed})
    if workers == 0:
        return (steps[place] for place in range(num_steps))
    # Its own generator, because DataLoader draws a seed for its workers: the global one belongs to the
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
        # Pickled as it is, a memory map sends the whole corpus to every worker; its place on disk is enough.
        # (Not for a slice of one: that has the offset of the whole.)
        if isinstance(split, np.memmap) and isinstance(split.base, mmap.mmap):
            state["_split"] = (str(split.filename), split.dtype, split.shape, split.offset)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._split, tuple):
            filename, dtype, shape, offset = self._split
            self._split = np.memmap(filename, dtype=dtype, mode="r", shape=shape, offset=offset)


def _init_worker(_: int) -> None:
    # Ctrl-C reaches the whole process group; the run decides what it means, and still needs batches
    # until it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A handler of the run was inherited by fork; here it would only keep the worker from being ended.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@lru_cache(maxsize=8)
def _epoch(seed: int, epoch: int, windows: int, length: int) -> tuple[np.ndarray, int]:
    """The order of an epoch's windows and where the first of them begins."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:16], "little")
    # Raw bits and a stable sort: numpy keeps these the same from version to version, its shuffles it
    # does not.
    draws = np.random.Philox(key=key).random_raw(windows + 1)
    return np.argsort(draws[1:], kind="stable"), int(draws[0] % np.uint64(length))


def _ring(split: np.ndarray, start: int, count: int) -> np.ndarray:
    part = split[start : start + count]
    return part if len(part) == count else np.concatenate([part, split[: count - len(part)]])
