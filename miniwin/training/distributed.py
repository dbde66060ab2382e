"""Data-parallel training under torchrun: every process has the model, and a share of each batch's rows.

    torchrun --nproc-per-node 2 -m miniwin train miniwin-1m --train tiny

`batch_size` is that of the whole batch. So the number of processes changes only the order of sums, and a run may be
continued with another number. (The load balance of a mixture of experts is an exception: each process computes it from
its own rows.) The first process keeps the run folder. The others work in a temporary folder.

What the processes hold of the model, and how they add up gradients, is the engine's (engines.py).
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from miniwin.shards import marks, put_together, taken_apart
from miniwin.specs import UserError

T = TypeVar("T")
CPU = torch.device("cpu")
PATIENCE = timedelta(days=30)  # the others wait while the first one evaluates; torchrun ends them if a process dies


@dataclass(frozen=True)
class Group:
    """The processes of a run. With a single process every method returns what it was given."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run folder."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise UserError if the processes cannot share a batch equally."""
        if batch_size % self.size:
            raise UserError(
                f"batch_size is {batch_size}, and {self.size} processes share it; expected a multiple of {self.size}"
            )

    def rows(self, batch: Tensor) -> Tensor:
        """This process's share (B / size, N) of a batch (B, N)."""
        return batch[self.span(len(batch))] if self.size > 1 else batch

    def span(self, count: int) -> slice:
        """Which of `count` rows are this process's."""
        own = count // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean(self, number: Tensor) -> Tensor:
        """The mean over all processes. Overwrites `number`."""
        if self.size > 1:
            dist.all_reduce(number)
            number /= self.size
        return number

    def share(self, value: T) -> T:
        """The first process's value, in all processes."""
        if self.size == 1:
            return value
        box: list[T] = [value]
        dist.broadcast_object_list(box, 0, device=self.device)
        return box[0]

    def spread(self, state: dict[str, Any]) -> dict[str, Any]:
        """The first process's state, with its tensors on the device of each process. The others give any."""
        if self.size == 1:
            return state
        skeleton, tensors = taken_apart(state) if self.leads else ({}, {})
        skeleton = self.share(skeleton)
        for key, shape, dtype in marks(skeleton):
            if self.leads:
                tensors[key] = tensors[key].to(self.device).contiguous()
            else:
                tensors[key] = torch.empty(shape, dtype=dtype, device=self.device)
            dist.broadcast(tensors[key], 0)
        found: dict[str, Any] = put_together(skeleton, tensors)
        return found

    def any(self, *flags: bool) -> list[bool]:
        """Which of the flags are up in at least one process."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(found)
        return [bool(number) for number in found.tolist()]

    def first_said(self, word: str | None) -> str | None:
        """The word of the first process that has one, in all processes."""
        if self.size == 1:
            return word
        words: list[str | None] = [None] * self.size
        dist.all_gather_object(words, word)
        return next((said for said in words if said is not None), None)


def join(device: str | torch.device | None) -> Group:
    """The processes that torchrun started, or this one alone.

    The process group stays open for the next run, until the process ends: a second one would find traces of the first.

    device: what the user asked for. `cuda` is the CUDA device of this process's number; None is that, or else the CPU.

    Raises:
        UserError: several processes were given one CUDA device, or there are fewer devices than processes.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return Group()
    own = _own(None if device is None else torch.device(device))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        from miniwin.training.rendezvous import meet  # not on systems where torch has no processes that talk

        store, rank, size = meet(PATIENCE)
        backend = "nccl" if own.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Group(dist.get_rank(), dist.get_world_size(), own)


def speaks() -> bool:
    """Whether this process prints results. Under torchrun only the first one does: the others would repeat it."""
    return not dist.is_available() or not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


def _own(asked: torch.device | None) -> torch.device:
    if asked is None:
        asked = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked.type != "cuda":
        return CPU if asked.type == "cpu" else asked  # cpu:3 is the same memory
    here, processes = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if asked.index is not None and processes > 1:
        raise UserError(
            f"device: got {asked} for {processes} processes; expected cuda: each process takes a device of its own"
        )
    if asked.index is None and processes > torch.cuda.device_count():
        raise UserError(
            f"device: {processes} processes were started on a machine with {torch.cuda.device_count()} CUDA devices; "
            "expected at most as many processes as devices, or --device cpu"
        )
    return torch.device("cuda", here) if asked.index is None else asked
