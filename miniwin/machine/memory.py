"""Whether new weights fit into memory. Asked before they are made: the system kills a process that asks for too much,
without a message.

Only what can never work is refused: more than all of the machine's memory, its swap space included. Where an allocation
fails all the same, `failed_allocation` says so in one line.
"""

from __future__ import annotations

import os
import re

from miniwin.specs import ModelSpec, UserError

GIB = 2**30
_ASKED = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]iB)")  # torch's words, of a CPU and of a GPU
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


class TooLarge(UserError):
    """A model that this machine has not enough memory for."""


def refuse_too_large(spec: ModelSpec, times: int = 1) -> None:
    """Raise TooLarge if the weights of `spec` in float32, `times` over, are more than this machine's memory."""
    room, parameters = total_memory(), spec.parameters()
    asked = 4 * parameters * times
    if room is None or asked <= room:
        return
    what = "its weights alone take" if times == 1 else "weights, gradients and optimizer take at least"
    raise TooLarge(
        f"{spec.name} has {parameters:,} parameters: in float32 {what} {asked / GIB:,.0f} GiB, and this machine has "
        f"{room / GIB:,.0f} GiB of memory. `miniwin explain` and `check` need none of it; to run it here, make it "
        "smaller, such as with fewer num_layers"
    )


def failed_allocation(error: BaseException) -> str | None:
    """One line for an allocation that failed, by Python or by torch; None for any other error."""
    text = str(error)
    by_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in text
    if not by_torch and not isinstance(error, MemoryError):
        return None
    found = _ASKED.search(text)
    asked = ""
    if found is not None:
        size = f"{float(found[1]) / GIB:,.1f} GiB" if found[2] == "bytes" else f"{found[1]} {found[2]}"
        asked = f": {size} were asked for at once"
    return f"not enough memory{asked}; a smaller batch_size, seq_len or length needs less"
