"""Where the processes of one start find one another, when torchrun has started them before.

torchrun keeps one store for all its restarts. The addresses of processes that have died are still in it, and new ones
would wait for them (PyTorch's issues 135712 and 167288). So each start takes a part of the store that is new, and the
first process gives out its number. The number of restarts would not do: of several machines, each counts its own.
"""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

PLACE = "miniwin-starts"
PAUSE_SECONDS = 0.01


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """(a store that is new, the rank of this process, the number of processes), as torchrun's environment says."""
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    return new_part(store, rank, size), rank, size


def new_part(store: Store, rank: int, size: int) -> Store:
    """A part of the store in which no earlier start has written. Called by all processes of a start."""
    shared = PrefixStore(PLACE, store)
    if rank == 0:
        number = shared.add("starts", 1)
        _tell(shared, number, set(range(1, size)))
    else:
        name = uuid4().hex  # new, so that nobody has answered it before
        shared.set(f"here/{rank}", name)
        number = int(shared.get(f"start/{name}"))  # waits for it
        shared.set(f"known/{number}/{rank}", "yes")
    return PrefixStore(str(number), shared)


def _tell(shared: Store, number: int, waiting: set[int]) -> None:
    """Answer each process by its name until it has heard. A name may be that of a process that has died."""
    while waiting:
        for rank in sorted(waiting):
            if shared.check([f"here/{rank}"]):
                shared.set(f"start/{shared.get(f'here/{rank}').decode()}", str(number))
        waiting = {rank for rank in waiting if not shared.check([f"known/{number}/{rank}"])}
        time.sleep(PAUSE_SECONDS)
