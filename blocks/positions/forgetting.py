"""Forgetting attention (Lin et al., arXiv 2503.02130): recency that depends on the text, without positions.

    f_t = sigmoid(W x_t + b), one number per head;    score_ij += sum_{t = j+1 .. i} log f_t

A key fades by the forget gates of every token after it, not by its own. One small gate makes all earlier keys of its
head fade at once. The sum is relative and causal, and extends to any length. Gates are cached beside keys and values,
since a later query needs them all. The paper's "Pro" layer (output gate, token shift) is another block, not this one.

x is the input of the attention layer. A fresh model has b = 0, so gates start near one half.
Cost: (hidden_size + 1) * H parameters, and H numbers more per token in the cache.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miniwin.blocks.positions.base import Heads, PositionEncoding, PositionSpec
from miniwin.blocks.registry import POSITIONS


class Forgetting(PositionEncoding):
    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, num_heads)
        nn.init.normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def log_gates(self, x: Tensor) -> Tensor:
        logits: Tensor = self.gate(x)  # (B, N, hidden_size) -> (B, N, H)
        return F.logsigmoid(logits if logits.dtype == torch.float64 else logits.float())


@POSITIONS.register
class ForgettingSpec(PositionSpec):
    """`position: {type: forgetting}`"""

    type: Literal["forgetting"] = "forgetting"

    @property
    def by_distance(self) -> bool:
        return True

    def build(self, heads: Heads) -> Forgetting:
        return Forgetting(heads.hidden_size, heads.num_heads)

    def parameters(self, heads: Heads) -> int:
        return (heads.hidden_size + 1) * heads.num_heads

    def gates(self, heads: Heads) -> int:
        return heads.num_heads

    def flops(self, heads: Heads) -> float:
        return 2.0 * heads.hidden_size * heads.num_heads
