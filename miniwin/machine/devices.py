"""The device of a training run, and what `dtype: auto` means on it.

`auto` is bfloat16 where products are clearly faster in bfloat16 than in float32. These are CUDA devices since Ampere,
and CPUs on which that is measured, such as those with AMX, or AVX-512 with avx512_bf16. There training takes about half
the time. Where bfloat16 products are emulated, training takes longer than in float32, and `auto` is float32.

bfloat16 is by autocast: weights, sums and the optimizer stay float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from miniwin.machine.matmul_choice import WORTH, measured
from miniwin.specs import UserError

if TYPE_CHECKING:
    from miniwin.specs import TrainSpec


def find_device(device: str | torch.device | None) -> torch.device:
    """The device that was asked for; by default CUDA where there is one, else the CPU.

    Raises:
        UserError: there is no such device, or it cannot compute.
    """
    named = device is not None
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise UserError(f"device: got {str(device)!r}; expected cpu, cuda, or cuda:1 and so on") from None
    if chosen.type == "cpu":
        return torch.device("cpu")  # cpu:3 is the same memory, and would be another device to code that compares
    if chosen.type == "meta":
        raise UserError("device: got meta, whose tensors hold no numbers; use cpu")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: {chosen} was asked for, and this machine has no CUDA device; use cpu")
    if named:  # the default is not tried, which would take memory on it: a search only asks which device it is
        _try(chosen)
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _try(device: torch.device) -> None:
    """Raise UserError if the device cannot hold a tensor."""
    try:
        torch.empty(1, device=device)
    except Exception as error:  # each kind of missing device raises another error
        said = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(f"device: {device} cannot be used on this machine ({said}); use cpu") from None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are clearly faster than in float32 on this device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and measured().narrow_gain >= WORTH


def settled(train: TrainSpec, device: torch.device, before: str | None = None) -> TrainSpec:
    """The same spec, with what `dtype: auto` means on this device in its place.

    before: the dtype that a run has had so far. A run that continues keeps it.
    """
    if train.dtype != "auto":
        return train
    found = before or ("bfloat16" if multiplies_bfloat16(device) else "float32")
    return train.model_copy(update={"dtype": found})
