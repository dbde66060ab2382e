"""Checkpoints that a crash cannot tear.

A checkpoint holds everything that the next step depends on and that is not a pure function of the step:
weights, optimizer moments, the state of the random number generators, and the smoothed loss. The data order
and the learning rate are functions of the step, so they need nothing.

A checkpoint is written under a temporary name, flushed to the disk, and renamed: the file under its own name is whole
at any moment. It is read with `weights_only=True`: tensors and plain values, never code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from miniwin.files.writing import replacing
from miniwin.specs.base import UserError

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists and dictionaries of them) atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk: torch then complains of a position in the file
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """The state that `save_checkpoint` wrote.

    Raises:
        UserError: the file cannot be read, or is not a checkpoint of this format.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):  # these say nothing about the file
        raise
    except Exception as error:  # the kind of error depends on where the file is damaged
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint ({first}); expected a file written by `miniwin train`: "
            "train again with --fresh, or put back the original file"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{path} is a checkpoint of format {found!r}; this miniwin reads format {FORMAT}")
    return state


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's random number generators: the CPU's, and that of a CUDA device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `rng_state` gave. Generator states live on the CPU, also those for a CUDA device."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
