"""Kernels of our own for a CPU, in C: what torch's do not have, or have slower.

They are compiled when miniwin is installed (setup.py), once for AVX-512 and once for AVX2, where there is a C compiler
and the machine is Linux on x86-64. Everything works without them, slower: `missing()` says why they are not there.

They take the addresses of tensors, so they know nothing of autograd, tracing or devices: who calls them sees to that.
Their threads are those of torch: its OpenMP library is the one that they find when they are loaded.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import torch

SWITCH = "MINIWIN_NATIVE"  # in the environment: 0 goes without
# torch's word for what the processor can do, and the library for it.
LIBRARIES = {"AVX512": "_avx512", "AVX512_VNNI": "_avx512", "AVX2": "_avx2"}
CODES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class MemoryRefused(MemoryError):
    """A kernel could not get the memory that it works in."""


@functools.cache
def _found() -> ctypes.CDLL | str:
    """The library for this processor, or why there is none."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 switches it off"
    able = torch.backends.cpu.get_cpu_capability()
    if able not in LIBRARIES:
        return f"its kernels are for AVX2 and AVX-512, and this processor has neither ({able})"
    file = Path(__file__).parent / f"{LIBRARIES[able]}.so"
    if not file.exists():
        return "its kernels were not compiled when miniwin was installed"
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:
        return f"its kernels cannot be loaded: {error}"


def missing() -> str | None:
    """Why the kernels cannot be used; None where they can."""
    found = _found()
    return found if isinstance(found, str) else None


def run(name: str, *arguments: object) -> None:
    """Call a kernel. Tensors among the arguments are kept alive by the caller.

    Raises:
        MemoryRefused: there was no memory for it.
    """
    library = _found()
    assert not isinstance(library, str), library
    if getattr(library, name)(*arguments):
        raise MemoryRefused(f"{name}: no memory; use fewer tokens at a time")
