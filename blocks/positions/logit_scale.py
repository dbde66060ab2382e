"""Logit scaling: multiply a query by a function of the number n of keys it sees, itself included.

`log` (Scalable-Softmax, Nakanishi, arXiv 2501.19399, eq. 4): q <- s_h * ln(n) * q with s per head, learned, or fixed
with `learned: false`. For n = 1 the factor is 0. This is harmless: a single key has weight 1 whatever its score.

`log-ratio` (the MiniWin authors' code): q <- ln(base + n) / ln(base + 1) * q, nothing learned. In their code n is the
total number of keys in the call: a prefill is then not causal, and decoding disagrees with it. `total_length: true`
reproduces this defect for their checkpoints; nothing else should use it.

`temperature` (Llama 4's attention temperature tuning): q <- (1 + scale * ln(1 + floor(n / floor))) * q, not learned.
It is 1 up to n = floor - 1 and then grows in steps. Llama 4 has it on its global layers, where n is the position + 1.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.registry import LOGIT_SCALES
from miniwin.blocks.spec import PositiveInt, PositiveReal, Strict


class LogScale(nn.Module):
    """scale: s, a parameter (H,); or a plain number, which is not trained."""

    def __init__(self, num_heads: int, init: float, learned: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_heads,), init)) if learned else init

    def forward(self, visible: Tensor, total: int) -> Tensor:
        dtype = torch.float64 if getattr(self.scale, "dtype", None) == torch.float64 else torch.float32
        logs = visible.to(dtype).log()  # (., N)
        return (logs.unsqueeze(-1) * self.scale).unsqueeze(-1)  # (., N, H or 1, 1)


@LOGIT_SCALES.register
class LogScaleSpec(Strict):
    """`logit_scale: {type: log}`. init: s before training; 0.2 gives a scale of about 1 at 150 keys."""

    LATER: ClassVar[frozenset[str]] = frozenset({"learned"})

    type: Literal["log"] = "log"
    init: PositiveReal = 0.2
    learned: bool = True

    def build(self, num_heads: int) -> LogScale:
        return LogScale(num_heads, self.init, self.learned)

    def parameters(self, num_heads: int) -> int:
        return num_heads if self.learned else 0


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


class TemperatureScale(nn.Module):
    def __init__(self, floor: int, scale: float) -> None:
        super().__init__()
        self.floor = floor
        self.scale = scale

    def forward(self, visible: Tensor, total: int) -> Tensor:
        steps = (visible // self.floor).to(torch.float32)  # (., N)
        return (1 + self.scale * steps.log1p()).unsqueeze(-1).unsqueeze(-1)  # (., N, 1, 1)


@LOGIT_SCALES.register
class TemperatureScaleSpec(Strict):
    """`logit_scale: {type: temperature, floor: 8192, scale: 0.1}`"""

    type: Literal["temperature"] = "temperature"
    floor: PositiveInt = 8192
    scale: PositiveReal = 0.1

    def build(self, num_heads: int) -> TemperatureScale:
        return TemperatureScale(self.floor, self.scale)

    def parameters(self, num_heads: int) -> int:
        return 0
