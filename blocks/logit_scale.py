"""Logit scaling: multiply a query by a function of the number n of keys it sees.

`log` (Scalable-Softmax, Nakanishi, arXiv 2501.19399, eq. 4): q <- s_h * ln(n) * q with a learned s per head. A query
that sees only itself (n = 1) has one key whatever its score.

`log-ratio` (the MiniWin authors' code): q <- ln(base + n) / ln(base + 1) * q, nothing learned. Their code takes for n
the total number of keys in the call, so that a prefill is not causal and decoding disagrees with it;
`total_length: true` reproduces that defect, to match their checkpoints, and nothing else should use it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.registry import LOGIT_SCALES
from miniwin.blocks.spec import PositiveReal, Strict


class LogScale(nn.Module):
    def __init__(self, num_heads: int, init: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_heads,), init))

    def forward(self, visible: Tensor, total: int) -> Tensor:
        logs = visible.to(torch.float32).log()  # (., N)
        return (logs.unsqueeze(-1) * self.scale).unsqueeze(-1)  # (., N, H, 1)


@LOGIT_SCALES.register
class LogScaleSpec(Strict):
    """`logit_scale: {type: log}`. init: s before training; 0.2 gives a scale of about 1 at 150 keys."""

    type: Literal["log"] = "log"
    init: PositiveReal = 0.2

    def build(self, num_heads: int) -> LogScale:
        return LogScale(num_heads, self.init)

    def parameters(self, num_heads: int) -> int:
        return num_heads


class LogRatioScale(nn.Module):
    def __init__(self, base: float, total_length: bool) -> None:
        super().__init__()
        self.base = base
        self.total_length = total_length

    def forward(self, visible: Tensor, total: int) -> Tensor:
        seen = torch.full_like(visible, total) if self.total_length else visible
        ratio = (seen.to(torch.float32) + self.base).log() / math.log(self.base + 1)  # (., N)
        return ratio.unsqueeze(-1).unsqueeze(-1)  # (., N, 1, 1)


@LOGIT_SCALES.register
class LogRatioScaleSpec(Strict):
    """`logit_scale: {type: log-ratio, base: 8}`"""

    type: Literal["log-ratio"] = "log-ratio"
    base: PositiveReal = 8.0
    total_length: bool = False

    def build(self, num_heads: int) -> LogRatioScale:
        return LogRatioScale(self.base, self.total_length)

    def parameters(self, num_heads: int) -> int:
        return 0
