"""Batches of rows. Each is a pure function of (rows, step, batch_size, seq_len, seed).

Rows of text are windows of a long array of token ids, a split. An epoch cuts the split into windows of seq_len + 1 ids
that overlap by one: every token is an input once and a target once. The first window starts at a seeded offset. The
windows come in a seeded order. The split is read as a ring: it ends with a document separator, so its beginning follows
its end as one more document.

An epoch leaves out len(split) modulo seq_len tokens, at another place in every epoch.

There is no state. So a run resumes by starting at another step, and workers cannot change what a step sees.

Shapes: B batch_size, N seq_len.
"""

from __future__ import annotations

import hashlib
import mmap
import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from miniwin.data.passes import Pass, Passes
from miniwin.data.rows import Row, Rows
from miniwin.specs import UserError

Batch = tuple[torch.Tensor, torch.Tensor]


class TextRows:
    """Windows of a split (tokens,)."""

    def __init__(self, split: np.ndarray) -> None:
        self.split = split

    def check(self, seq_len: int) -> None:
        windows_per_epoch(self.split, seq_len)

    def rows(self, first: int, count: int, seq_len: int, seed: int) -> list[Row]:
        split, windows = self.split, windows_per_epoch(self.split, seq_len)
        found = []
        for number in range(first, first + count):  # windows are numbered across epochs
            epoch, place = divmod(number, windows)
            order, offset = epoch_order(seed, epoch, windows, len(split))
            ids = _ring(split, (offset + int(order[place]) * seq_len) % len(split), seq_len + 1)  # (N + 1,)
            found.append((ids[:-1], ids[1:]))
        return found

    def documents(self, first: int, count: int, seq_len: int, seed: int) -> dict[int, np.ndarray]:
        return {}

    def sizes(self, first: int, count: int) -> tuple[int, ...]:
        return (count,)

    def __getstate__(self) -> Any:
        return {"split": on_disk(self.split)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.split = from_disk(state["split"])


def on_disk(array: np.ndarray) -> Any:
    """What to pickle of an array. A memory map as it is sends the whole corpus to every worker; its place is enough."""
    # A slice of a map is pickled as it is: its `offset` is that of the whole map.
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        return str(array.filename), array.dtype, array.shape, array.offset
    return array


def from_disk(state: Any) -> np.ndarray:
    """The array of which `on_disk` gave the state."""
    if not isinstance(state, tuple):
        return np.asarray(state)
    filename, dtype, shape, offset = state
    return np.memmap(filename, dtype=dtype, mode="r", shape=shape, offset=offset)


def batch_at(rows: np.ndarray | Rows, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch:
    """(inputs, targets) of one step, (B, N) int64 each. A target is the token after its input, or -100: not counted.

    rows: a split of text (tokens,), or rows of another kind.

    Raises:
        UserError: the split is too short for one sequence, or an example takes more room.
    """
    return _batch(_rows(rows), Pass(step * batch_size, batch_size, seq_len), seed)


def _batch(rows: Rows, at: Pass, seed: int) -> Batch:
    inputs, targets = zip(*rows.rows(at.first, at.batch_size, at.seq_len, seed), strict=True)  # of (N,)
    return torch.from_numpy(np.stack(inputs).astype(np.int64)), torch.from_numpy(np.stack(targets).astype(np.int64))


def _rows(rows: np.ndarray | Rows) -> Rows:
    return TextRows(rows) if isinstance(rows, np.ndarray) else rows


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
    rows: np.ndarray | Rows,
    *,
    start_step: int,
    num_steps: int,
    batch_size: int,
    seq_len: int | Sequence[int],
    weights: Sequence[float] | None = None,
    seed: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """`batch_at` of `num_steps` steps from `start_step` on, in order. `workers` processes read ahead; 0: none does.

    With several lengths in seq_len, each step has one of them, and as many tokens as any other step (passes.py).
    weights: how often each length comes; by default equally often.
    """
    lengths = (seq_len,) if isinstance(seq_len, int) else tuple(seq_len)
    passes = Passes(lengths, (1.0,) * len(lengths) if weights is None else tuple(weights), batch_size)
    rows = _rows(rows)
    for length in passes.lengths:
        rows.check(length)  # raises a user's mistake here, not in a worker
    steps = _Steps(rows, start_step, num_steps, passes, seed)
    if workers == 0:
        return (steps[place] for place in range(num_steps))
    # A generator of its own, because DataLoader draws a seed for its workers. The global generator belongs to the
    # training run.
    loading: DataLoader[Batch] = DataLoader(
        steps, batch_size=None, num_workers=workers, worker_init_fn=_init_worker, generator=torch.Generator()
    )
    return iter(loading)


class _Steps(Dataset[Batch]):
    """Item i is the batch of pass start + i."""

    def __init__(self, rows: Rows, start: int, count: int, passes: Passes, seed: int) -> None:
        self._rows, self._start, self._count, self._passes, self._seed = rows, start, count, passes, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Batch:
        return _batch(self._rows, self._passes[self._start + place], self._seed)


def _init_worker(_: int) -> None:
    # Ctrl-C reaches the whole process group. The run decides what it means, and needs batches until it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The worker inherited the run's handler by fork. Here the handler would only keep the worker from being ended.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, windows: int, length: int) -> tuple[np.ndarray, int]:
    """(the order of an epoch's windows (windows,), the offset of the first one in the split)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:16], "little")
    # Raw bits and a stable sort stay the same from version to version of numpy. Its shuffles do not.
    draws = np.random.Philox(key=key).random_raw(windows + 1)
    return np.argsort(draws[1:], kind="stable"), int(draws[0] % np.uint64(length))


def _ring(split: np.ndarray, start: int, count: int) -> np.ndarray:
    """(count,) ids from `start` on; the beginning of the split follows its end."""
    part = split[start : start + count]
    return part if len(part) == count else np.concatenate([part, split[: count - len(part)]])
