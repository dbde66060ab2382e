"""Where a result comes from: the version of the code and the machine. Recorded when training begins or continues.

Nothing here names a person or a host: these fields end up on published model cards.
"""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from miniwin.version import __version__

# Instruction sets that matrix products use, x86-64's and then ARM's.
TELLING = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "svebf16", "sme"),
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """`0.1.0` of an installed package; in a git checkout `0.1.0+g1a2b3c4d5e6f`, and `.dirty` if changed."""
    root = Path(__file__).resolve().parent.parent
    # Only our own checkout counts: an environment may well lie inside some other repository.
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return __version__
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return __version__
    dirty = ".dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{__version__}+g{commit}{dirty}"


def _git(root: Path, *arguments: str) -> str:
    # Without a lock: a `git status` that is killed while it refreshes the index would leave index.lock behind.
    try:
        done = subprocess.run(["git", "--no-optional-locks", *arguments], cwd=root, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def machine() -> dict[str, Any]:
    """The hardware and the software that a number was measured on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": _memory_gb(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The instruction sets of TELLING that the processor has. Where Linux does not name them: what torch found."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    found = [name for name in TELLING if name in flags]
    return found or [torch.backends.cpu.get_cpu_capability().lower()]


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
