"""Workers as processes of this machine, which share its cores and take turns on its GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from miniwin.search.launchers.launcher import Launcher, Order
from miniwin.search.launchers.process import ChildWorker, start


class Local(Launcher):
    """Processes of this machine."""

    type: Literal["local"] = "local"

    def check(self) -> None:
        pass

    def threads(self, workers: int) -> int:
        return max(1, _cores() // workers)

    @contextmanager
    def opened(self, folder: Path, note: Callable[[str], None]) -> Iterator[Callable[[Order], ChildWorker]]:
        yield _start


def _start(order: Order) -> ChildWorker:
    gpu = _gpu(order.number)
    return start(order, {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})


def _cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(available, int(asked)) if asked.isdigit() and int(asked) > 0 else available


def _gpu(number: int) -> str | None:
    """The GPU of a worker: workers take turns on several GPUs. None leaves the choice to PyTorch."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[number % count].strip() if count > 1 else None
