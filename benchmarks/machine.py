"""What the figures were measured on, without the names of hosts, people or folders."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.timing import quartiles, seconds
from miniwin.provenance import code_version, machine


def described() -> dict[str, Any]:
    """Hardware and software."""
    facts = machine()
    return {
        "cpu": facts["cpu"],
        "cores": facts["cores"],
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(_amx()),
        "memory_gb": facts["memory_gb"],
        "gpu": facts["gpu"],
        "system": f"{platform.system()} {platform.machine()}",
        "python": facts["python"],
        "torch": facts["torch"],
        "miniwin": code_version(),
    }


def load() -> float | None:
    """Processes that want a core, mean of the last minute: with more of them than cores, figures are of little use."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _amx() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return any(line.startswith("flags") and " amx_tile" in line for line in lines)
    except OSError:
        return False


def matmul_peak(dtype: torch.dtype, size: int, runs: int = 9) -> dict[str, float]:
    """FLOPs per second of a square product, the median of a few, and its quartiles."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    a @ b
    rates = sorted(2.0 * size**3 / seconds(lambda: a @ b) for _ in range(runs))
    low, high = quartiles(rates)
    return {"median": rates[len(rates) // 2], "low": low, "high": high}


def stem(plan: str, only: Sequence[str] | None = None) -> str:
    """A file name that says the hardware and the date; and which cases, where they are not all."""
    facts = machine()
    hardware = facts["gpu"] if plan == "gpu" else f"{facts['cpu']} {torch.get_num_threads()}threads"
    kind = "" if plan == "quick" else f"-{plan}"
    cases = "".join(f"-{_plain(name)}" for name in only or ())
    return f"{_plain(hardware)}-{datetime.date.today().isoformat()}{kind}{cases}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
