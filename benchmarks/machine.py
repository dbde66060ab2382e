"""What the figures were measured on, without the names of hosts, people or folders."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.case import Run
from benchmarks.timing import quartiles, seconds
from miniwin.blocks import matmul_library
from miniwin.machine.matmul_choice import chosen
from miniwin.provenance import code_version, instructions, machine


def described() -> dict[str, Any]:
    """Hardware and software. instructions: those of torch's own kernels; sets: the instruction sets of the processor;
    products: the library chosen for float32."""
    facts = machine()
    return {
        "cpu": facts["cpu"],
        "cores": facts["cores"],
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": "amx_tile" in instructions(),
        "sets": " ".join(instructions()),
        "products": chosen(),
        "memory_gb": facts["memory_gb"],
        "gpu": facts["gpu"],
        "system": f"{platform.system()} {platform.machine()}",
        "python": facts["python"],
        "torch": facts["torch"],
        "miniwin": code_version(),
    }


def load() -> float | None:
    """Processes that want a core, mean of the last minute. With more of them than cores, figures are of little use."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def matmul_peaks(dtype: torch.dtype, size: int, runs: int = 9) -> dict[str, dict[str, float]]:
    """FLOPs per second of a square product by each library that makes it, in turn: the median, and its quartiles."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    sides = squares(a, b)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(runs):
        for name, run in sides.items():
            rates[name].append(2.0 * size**3 / seconds(run))
    found = {}
    for name, each in rates.items():
        low, high = quartiles(each)
        found[name] = {"median": statistics.median(each), "low": low, "high": high}
    return found


def squares(a: torch.Tensor, b: torch.Tensor) -> dict[str, Run]:
    """a @ b by each library: torch gives dtypes other than float32 to one alone."""
    kinds = matmul_library.offered() if a.dtype == torch.float32 else (matmul_library.MKL,)
    return {kind: partial(matmul_library.linear, a, b.t(), None, kind) for kind in kinds}


def fastest_square(a: torch.Tensor, runs: int = 5) -> Run:
    """a @ a, by the library that is the fastest at it."""
    sides = squares(a, a)
    first = {name: seconds(run) for name, run in sides.items()}
    took = {name: min(seconds(run) for _ in range(runs)) for name, run in sides.items()} if len(first) > 1 else first
    return sides[min(took, key=lambda name: took[name])]


def stem(plan: str, only: Sequence[str] | None = None) -> str:
    """A file name that says the hardware and the date; and which cases, where they are not all."""
    facts = machine()
    hardware = facts["gpu"] if plan == "gpu" else f"{facts['cpu']} {_best_set()} {torch.get_num_threads()}threads"
    kind = "" if plan == "quick" else f"-{plan}"
    cases = "".join(f"-{_plain(name)}" for name in only or ())
    return f"{_plain(hardware)}-{datetime.date.today().isoformat()}{kind}{cases}"


def _best_set() -> str:
    """The widest instruction set: clouds rent out several processors under one name, and this tells them apart."""
    here = instructions()
    for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve2", "sve", "asimd"):
        if name in here:
            return name.removesuffix("f") if name == "avx512f" else name
    return here[0]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
