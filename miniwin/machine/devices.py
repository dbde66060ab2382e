"""Where a training run takes place, and in which precision where its spec says `dtype: auto`.

bfloat16 (autocast: weights, sums and the optimizer stay float32) where the processor has units for its products: CUDA
since Ampere, and CPUs on which these products are measured to be clearly faster than those of float32, as with AMX, or
AVX-512 with avx512_bf16. There training takes about half the time; where such products are emulated it takes longer
than in float32.
"""

from __future__ import annotations

import torch

from miniwin.machine.products import WORTH, measured
from miniwin.specs import TrainSpec, UserError


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
    if named:  # of the default nothing is taken: a search only asks which it is
        _try(chosen)
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _try(device: torch.device) -> None:
    try:
        torch.empty(1, device=device)
    except Exception as error:  # each kind of device that is not there fails in a way of its own
        said = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(f"device: {device} cannot be used on this machine ({said}); use cpu") from None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether this device is faster at products of bfloat16, and clearly so."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and measured().narrow_gain >= WORTH


def settled(train: TrainSpec, device: torch.device, before: str | None = None) -> TrainSpec:
    """The same run with `dtype: auto` replaced by what it means here, or by what it meant `before`, for a run that goes
    on."""
    if train.dtype != "auto":
        return train
    found = before or ("bfloat16" if multiplies_bfloat16(device) else "float32")
    return train.model_copy(update={"dtype": found})
