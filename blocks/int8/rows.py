"""Rows in int8: integers in -127 .. 127, and one float32 scale for each row.

    x ~ values * scale,   scale = max |x| / 127

The largest error of a number is half a scale. Keys and values have a scale for each token and head, so storing a token
never changes another.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(..., D) -> values (..., D) int8, scale (...) float32."""
    rows = rows.float()
    scale = rows.abs().amax(-1) / LARGEST
    values = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)).round_()
    return values.clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def widened(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """values (..., D) int8, scale (...) -> (..., D) in `dtype`."""
    return (values.to(scale.dtype) * scale.unsqueeze(-1)).to(dtype)
