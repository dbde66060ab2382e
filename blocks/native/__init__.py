"""Kernels in C for a CPU: operations that torch does not have, or has slower.

They are compiled when miniwin is installed (setup.py), once for each of BUILDS, on Linux on x86-64 with a C compiler.
Everything works without them, but slower. `missing()` says why they are not there.

The kernels take the addresses of tensors and know nothing of autograd, tracing or devices. Their callers must, with the
help of `ordinary`. The kernels use torch's threads: when they are loaded, they find torch's OpenMP library.
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

SWITCH = "MINIWIN_NATIVE"  # environment variable: 0 for no kernels, 1 for the best build, or a build such as avx2
# The builds, the best first, and the processor features that each needs, by Linux's names.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
BUILDS = {
    "_amx": AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"},
    "_avx512": AVX512,
    "_avx2": frozenset({"avx2", "fma"}),
}
_off: ContextVar[bool] = ContextVar("native_off", default=False)
CODES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class MemoryRefused(MemoryError):
    """A kernel could not allocate its working memory."""


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
    """The best build that works here, or the build that the environment asks for: its name and library; or why not.

    Raises:
        UserError: the environment asks for a build that does not exist or does not work here.
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
        raise UserError(f"{SWITCH}: got {asked!r} in the environment, which cannot be used: {found}")
    return found


def _loaded(names: list[str]) -> tuple[str, ctypes.CDLL] | str:
    """The first of these builds that works: its name and library; or why none does."""
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
    """Whether the sources have changed since the library was compiled. A checkout has sources; a wheel has none."""
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
    """Inside the block no kernel is used, as with MINIWIN_NATIVE=0."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def ordinary(*tensors: object) -> bool:
    """Whether a kernel can be given the memory of these tensors, and loses nothing that they carry.

    Tensors that are traced, batched by torch.func, dual or fake are not ordinary. An object that is no tensor stands
    for an ordinary tensor (miniwin explain).
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    if forward_ad._current_level >= 0:  # forward-mode derivatives would be lost silently
        return False
    return all(not isinstance(t, Tensor) or (type(t) in (Tensor, Parameter) and t.numel() > 0) for t in tensors)


def has_amx() -> bool:
    """Whether the kernels multiply bfloat16 on AMX, and not in float32."""
    return missing() is None and _found()[0] == "_amx"


def run(name: str, *arguments: object) -> None:
    """Call a kernel. The caller keeps alive the tensors whose addresses are among the arguments.

    Raises:
        MemoryRefused: the kernel could not allocate memory.
    """
    found = _found()
    assert not isinstance(found, str), found
    if getattr(found[1], name)(*arguments):
        raise MemoryRefused(f"{name}: no memory; use fewer tokens at a time")
