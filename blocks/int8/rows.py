"""Eight bits a number: rows as whole numbers of -127 .. 127 and one scale.

    x ~ values * scale,   scale = max |x| / 127

The largest error of a number is half a scale. Keys and values get a scale for each token and head, so that storing a
token never looks at another. Scales are float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(..., D) -> int8 (..., D) and scale (...) float32."""
    rows = rows.float()
    scale = rows.abs().amax(-1) / LARGEST
    values = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)).round_()
    return values.clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def widened(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 (..., D) and scale (...) -> (..., D)."""
    return (values.to(scale.dtype) * scale.unsqueeze(-1)).to(dtype)
