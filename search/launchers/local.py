"""Workers as processes of this machine, which share its cores and take turns on its GPUs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from miniwin.search.launchers.command import command, environment, tail
from miniwin.search.launchers.launcher import Ended, Launcher, Order
from miniwin.training.signals import ask_to_stop, own_group


class Local(Launcher):
    """Processes of this machine."""

    type: Literal["local"] = "local"

    def threads(self, workers: int) -> int:
        return max(1, _cores() // workers)

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Callable[[Order], LocalWorker]]:
        yield _start


@dataclass(frozen=True)
class LocalWorker:
    """began: the offset in the log where the worker's own output begins."""

    process: subprocess.Popen[bytes]
    log: Path
    began: int

    def poll(self) -> Ended | None:
        code = self.process.poll()
        return None if code is None else Ended(code, tail(self.log, self.began))

    def ask_to_stop(self) -> None:
        ask_to_stop(self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _start(order: Order) -> LocalWorker:
    given = environment(order)
    if (gpu := _gpu(order.number)) is not None:
        given["CUDA_VISIBLE_DEVICES"] = gpu
    with open(order.log, "ab") as log:
        began = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command(order),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=given,
            **own_group(),
        )
    return LocalWorker(process, order.log, began)


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
