"""Whether new weights fit into memory. Asked before they are made: the system kills a process that asks for too much,
without a message.

Only what can never work is refused: more than all of the machine's memory, its swap space included.
"""

from __future__ import annotations

import os

from miniwin.specs import ModelSpec, UserError

GIB = 2**30
TRAINED = 3  # times the weights, at least: the weights, their gradients, and the optimizer's state


def total_memory() -> int | None:
    """Bytes of memory and swap space; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            told = dict(line.split(":", 1) for line in file)
        return 1024 * sum(int(told[name].split()[0]) for name in ("MemTotal", "SwapTotal"))
    except (OSError, ValueError, KeyError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def refuse_too_large(spec: ModelSpec, times: int = 1) -> None:
    """Raise UserError if the weights of `spec` in float32, `times` over, are more than this machine's memory."""
    room, parameters = total_memory(), spec.parameters()
    asked = 4 * parameters * times
    if room is None or asked <= room:
        return
    what = "its weights alone take" if times == 1 else "weights, gradients and optimizer take at least"
    raise UserError(
        f"{spec.name} has {parameters:,} parameters: in float32 {what} {asked / GIB:,.0f} GiB, and this machine has "
        f"{room / GIB:,.0f} GiB of memory. `miniwin explain` and `check` need none of it; to run it here, make it "
        "smaller, such as with fewer num_layers"
    )
