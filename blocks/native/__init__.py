"""Kernels of our own for a CPU, in C: what torch's do not have, or have slower.

They are compiled when miniwin is installed (setup.py), once for each of BUILDS, where there is a C compiler and the
machine is Linux on x86-64. Everything works without them, slower: `missing()` says why they are not there.

They take the addresses of tensors, so they know nothing of autograd, tracing or devices: who calls them sees to that,
with the help of `ordinary`.
Their threads are those of torch: its OpenMP library is the one that they find when they are loaded.
"""

from __future__ import annotations

import ctypes
import functools
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from miniwin.blocks.spec import UserError

SWITCH = "MINIWIN_NATIVE"  # in the environment: 0 goes without, 1 takes the best build, avx2 and so on that one
# The builds, the best first, and what the processor must have for each, in Linux's words.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
BUILDS = {
    "_amx": AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"},
    "_avx512": AVX512,
    "_avx2": frozenset({"avx2", "fma"}),
}
_off: ContextVar[bool] = ContextVar("native_off", default=False)
CODES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class MemoryRefused(MemoryError):
    """A kernel could not get the memory that it works in."""


def able() -> list[str]:
    """The builds that this processor can run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    flags = set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
    return [name for name, needed in BUILDS.items() if needed <= flags]


@functools.cache
def _found() -> tuple[str, ctypes.CDLL] | str:
    """The best build that works here, or the one that was asked for, its name first; or why there is none.

    Raises:
        UserError: the environment asks for what there is not.
    """
    asked = os.environ.get(SWITCH, "1")
    if asked == "0":
        return f"{SWITCH}=0 switches it off"
    runs = able()
    if asked != "1":
        names = [name.removeprefix("_") for name in BUILDS]
        if asked not in names:
            expected = f"0, to go without kernels, 1, or a build: {', '.join(names)}"
            raise UserError(f"{SWITCH}: got {asked!r} in the environment; expected {expected}")
        if f"_{asked}" not in runs:
            here = ", ".join(name.removeprefix("_") for name in runs) or "none of them"
            raise UserError(f"{SWITCH}: got {asked!r} in the environment; this processor can run {here}")
        runs = [f"_{asked}"]
    found = _loaded(runs)
    if asked != "1" and isinstance(found, str):
        raise UserError(f"{SWITCH}: got {asked!r} in the environment, and it cannot be had: {found}")
    return found


def _loaded(names: list[str]) -> tuple[str, ctypes.CDLL] | str:
    """The first of these builds that works; or why none does."""
    reason = "its kernels are for Linux on x86-64 with AVX2 or AVX-512"
    for name in names:
        file = Path(__file__).parent / f"{name}.so"
        if not file.exists():
            reason = "its kernels were not compiled when miniwin was installed"
            continue
        try:
            library = ctypes.CDLL(str(file))
        except OSError as error:
            reason = f"its kernels cannot be loaded: {error}"
            continue
        if _stale(library):
            reason = "its kernels were compiled from other sources than these: install miniwin again"
        elif library.miniwin_start():
            reason = "the operating system does not let its kernels use the processor's tiles"
        else:
            return name, library
    return reason


def _stale(library: ctypes.CDLL) -> bool:
    """Whether the sources have changed since, in a checkout; a wheel has none."""
    sources = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".c", ".h"))
    if not sources:
        return False
    made_from = getattr(library, "miniwin_sources", None)
    if made_from is None:
        return True
    made_from.restype = ctypes.c_uint32
    return bool(made_from() != zlib.crc32(b"".join(path.read_bytes() for path in sources)))


def missing() -> str | None:
    """Why the kernels cannot be used; None where they can."""
    if _off.get():
        return "its kernels are switched off here"
    found = _found()
    return found if isinstance(found, str) else None


@contextmanager
def without() -> Iterator[None]:
    """Inside the block everything goes by torch's operators, as MINIWIN_NATIVE=0 has it."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def ordinary(*tensors: object) -> bool:
    """Whether these have memory that a kernel can be given, and nothing else that it would lose: they are not traced,
    batched by torch.func, dual or fake.

    What is no tensor at all stands for an ordinary one (miniwin explain).
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    if forward_ad._current_level >= 0:  # forward-mode derivatives would be lost without a word
        return False
    return all(not isinstance(t, Tensor) or (type(t) in (Tensor, Parameter) and t.numel() > 0) for t in tensors)


def has_amx() -> bool:
    """Whether products of bfloat16 are made as such, and not in float32."""
    return missing() is None and _found()[0] == "_amx"


def run(name: str, *arguments: object) -> None:
    """Call a kernel. Tensors among the arguments are kept alive by the caller.

    Raises:
        MemoryRefused: there was no memory for it.
    """
    found = _found()
    assert not isinstance(found, str), found
    if getattr(found[1], name)(*arguments):
        raise MemoryRefused(f"{name}: no memory; use fewer tokens at a time")
