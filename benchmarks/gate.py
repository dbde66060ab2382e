"""The correctness gate: a side that computes something else gets no figure.

error = max |ours - theirs| / max |theirs|
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}


class Disagreement(Exception):
    """Two sides that should compute the same do not."""


def agree(what: str, ours: Tensor, theirs: Tensor, dtype: torch.dtype | None = None) -> float:
    """The error, or Disagreement where it is too large for the dtype (that of `ours` unless given), or not a number."""
    if ours.shape != theirs.shape:
        raise Disagreement(f"{what}: shapes {tuple(ours.shape)} and {tuple(theirs.shape)}")
    limit = TOLERANCE[dtype or ours.dtype]
    wide = torch.float64 if torch.float64 in (ours.dtype, theirs.dtype) else torch.float32
    a, b = ours.detach().to(wide), theirs.detach().to(wide)
    error = float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
    if not error <= limit:
        raise Disagreement(f"{what}: differ by {error:.2g} of the largest value; at most {limit:g} is rounding")
    return error
