"""Which matrix product is the fastest on the machine at hand: measured once, and remembered in the cache folder.

    MINIWIN_PRODUCTS=auto     the faster one of torch's own (MKL, where it was built with it) and oneDNN, in float32
    MINIWIN_PRODUCTS=mkl      torch's own
    MINIWIN_PRODUCTS=onednn   oneDNN's

The times of the three products of a linear map (forward, and both gradients) are remembered for each processor, torch
version and number of threads. They also decide whether bfloat16 is worth its rounding (devices.py). A processor's flags
could not decide this: they name an instruction, not how fast it is or whether a library uses it.

A run keeps the product that it began with, since another product rounds differently. Older versions did not record the
product; their runs were trained with torch's own.
"""

from __future__ import annotations

import functools
import math
import os
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import matmul_library
from miniwin.blocks.matmul_library import MKL, ONEDNN, Product
from miniwin.files.folders import cache_folder
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_json
from miniwin.provenance import instructions, machine
from miniwin.specs import UserError

SWITCH = "MINIWIN_PRODUCTS"
AUTO = "auto"
FILE = "products.json"
FORMAT = 1
CLEAR = 1.2  # times as fast as torch's own: with less, torch's own stays, so that noise decides nothing
WORTH = 1.5  # times as fast as in float32: with less, bfloat16 is not worth its rounding
ROWS, WIDTH = 256, 512
STILL, SECONDS = 8, 1.0  # measuring ends after so many rounds in a row without a better time, or after so long
BEATEN = 0.97  # a time is better if it is less than this share of the best
LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
)  # variables by which a user keeps the libraries from some instructions


@dataclass(frozen=True)
class Times:
    """Milliseconds of the three products of a linear map: in float32 by each library, and in bfloat16 by torch's."""

    mkl: float
    onednn: float
    bfloat16: float

    @property
    def gain(self) -> float:
        """How many times as fast as torch's own product oneDNN's is."""
        return self.mkl / self.onednn

    @property
    def narrow_gain(self) -> float:
        """How many times as fast bfloat16 is as float32 by the better library."""
        return min(self.mkl, self.onednn) / self.bfloat16


def asked() -> str:
    """What MINIWIN_PRODUCTS says; auto by default.

    Raises:
        UserError: the value is unknown, or is onednn where torch has none.
    """
    value = os.environ.get(SWITCH) or AUTO
    if value not in (AUTO, MKL, ONEDNN):
        raise UserError(f"{SWITCH}: got {value!r} in the environment; expected {AUTO}, {MKL} or {ONEDNN}")
    if value == ONEDNN and ONEDNN not in matmul_library.offered():
        raise UserError(f"{SWITCH}: {ONEDNN} was asked for, and this torch has no oneDNN here; use {AUTO} or {MKL}")
    return value


def chosen() -> Product:
    """The product for new work on a CPU."""
    value = asked()
    if value != AUTO:
        return ONEDNN if value == ONEDNN else MKL
    return ONEDNN if ONEDNN in matmul_library.offered() and measured().gain >= CLEAR else MKL


def settle(decoder: nn.Module, device: torch.device) -> None:
    """Make a decoder use this machine's product. Only on a CPU is there a choice."""
    if device.type == "cpu":
        matmul_library.choose(decoder, chosen())


def of_run(before: dict[str, Any] | None, device: torch.device, folder: Path, compiled: bool) -> Product | None:
    """The product of a training run. On a GPU none is chosen: None, or the one that the run had on a CPU.

    before: what run.json says of a run that continues. compiled: whether its layers are compiled. Compiled layers
    always use torch's own product; the head and its loss are not compiled.

    Raises:
        UserError: MINIWIN_PRODUCTS asks for another product than the run began with, or for onednn in compiled layers.
    """
    kept = None if before is None else before.get("products", MKL)
    if device.type != "cpu":
        return kept  # for the run when it is on a CPU again
    value = asked()
    if value == ONEDNN and compiled:
        raise UserError(
            f"{SWITCH} is {ONEDNN}, but compiled layers (compile: true) use torch's own products; set compile: false, "
            f"or {SWITCH}={AUTO}"
        )
    if kept is None:
        return chosen()
    if value not in (AUTO, kept):
        raise UserError(
            f"{folder} holds a run with the products of {kept}, and {SWITCH} is {value}: a run keeps those that it "
            f"began with; unset {SWITCH} to go on, choose another --out, or start over with --fresh"
        )
    if kept not in matmul_library.offered():
        warnings.warn(
            f"{folder}: this run began with the products of {kept}, which this torch does not have; it goes on with "
            "torch's own, and its weights will differ in rounding from what they would have been",
            stacklevel=2,
        )
        return MKL
    return ONEDNN if kept == ONEDNN else MKL


def explained() -> dict[str, Any]:
    """What `miniwin explain --backends` says of products."""
    facts: dict[str, Any] = {"float32 on a cpu": chosen(), "asked": asked()}
    there = ONEDNN in matmul_library.offered()
    return {**facts, "milliseconds": asdict(measured()) if there else None}


def measured() -> Times:
    """The times on this machine, remembered or measured now."""
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    facts = machine()
    parts = [facts["cpu"], " ".join(instructions()), f"torch {facts['torch']}", f"{facts['threads']} threads", *limits]
    return _measured(" | ".join(parts))


@functools.cache
def _measured(key: str) -> Times:
    """Of several processes only one measures: otherwise noise could make them choose differently."""
    try:
        path = cache_folder() / FILE
        found = _remembered(path).get(key)
        if found is None:
            from filelock import FileLock

            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock"), timeout=10):
                known = _remembered(path)
                found = known.get(key) or _measure()
                kept = {name: asdict(times) for name, times in {**known, key: found}.items()}
                write_json(path, {"format": FORMAT, "unit": "milliseconds", "machines": kept})
        return found
    except (OSError, RuntimeError, UserError):  # times cannot be remembered here; measure without
        return _measure()


def _remembered(path: Path) -> dict[str, Times]:
    """The measurements in the file. Anything else in it is left out."""
    try:
        held = read_json(path)
    except (OSError, JSONProblem):
        return {}
    machines = held.get("machines") if isinstance(held, dict) and held.get("format") == FORMAT else None
    found = {}
    for key, value in (machines if isinstance(machines, dict) else {}).items():
        names = Times.__dataclass_fields__
        if isinstance(value, dict) and value.keys() == names.keys() and all(_is_time(each) for each in value.values()):
            found[key] = Times(**value)
    return found


def _is_time(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _measure() -> Times:
    """The better of the times with all threads and with one: on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    found = [_timed()]
    if threads > 1:
        try:
            torch.set_num_threads(1)
            found.append(_timed())
        finally:
            torch.set_num_threads(threads)
    return min(found, key=lambda times: times.mkl + times.onednn + times.bfloat16)


@torch.no_grad()
def _timed() -> Times:
    """The shortest time of each product, measured in turn: other processes only make a time longer. On a quiet machine
    this takes a tenth of a second."""
    generator = torch.Generator().manual_seed(0)
    x, w, g = (torch.randn(size, WIDTH, generator=generator) for size in (ROWS, WIDTH, ROWS))
    pairs = [(x, w), (g, w.t()), (g.t(), x.t())]  # y = x w^T, and the gradients g w and g^T x
    narrow = [(a.bfloat16(), b.bfloat16()) for a, b in pairs]
    sides: tuple[tuple[list[tuple[Tensor, Tensor]], Product], ...] = ((pairs, MKL), (pairs, ONEDNN), (narrow, MKL))
    best = [[math.inf] * len(pairs) for _ in sides]
    began, still = time.perf_counter(), 0  # rounds since a time was last beaten clearly
    with torch.autocast("cpu", enabled=False):
        while still < STILL and time.perf_counter() - began < SECONDS:
            still += 1
            for (operands, product), each in zip(sides, best, strict=True):
                for j, (a, b) in enumerate(operands):
                    start = time.perf_counter()
                    matmul_library.linear(a, b, None, product)
                    took = 1000 * (time.perf_counter() - start)
                    still = 0 if took < BEATEN * each[j] else still
                    each[j] = min(each[j], took)
    return Times(*(round(sum(each), 3) for each in best))
