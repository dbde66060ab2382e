"""Routers choose the experts that a token goes to, and the weight of each.

    logits = W x (+ b)
    softmax-topk   softmax of all logits, then the K largest shares, made to sum to 1 if asked   (Qwen3-MoE, MiniMind)
    topk-softmax   the K largest logits, then the softmax of these alone     (arXiv 1701.06538, eq. 3; Mixtral; gpt-oss)
    topk-sigmoid   the K largest logits, then the sigmoid of each, which scales the expert's *input*           (Llama 4)

Softmax-topk with `normalise` and topk-softmax are the same function; each is written as its sources write it. A router
computes in float32, also under autocast (in float64 for float64 input), since rounded logits may choose other experts
(selective precision, Switch Transformer, arXiv 2101.03961, section 2.4).

Shapes: T tokens, C hidden_size, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from miniwin.blocks.registry import ROUTERS
from miniwin.blocks.spec import Strict


@dataclass(frozen=True)
class Routes:
    """The choice of a router.

    experts (T, K) int64, best first; weights (T, K); shares (T, E): a distribution over experts, for the balance loss.
    """

    experts: Tensor
    weights: Tensor
    shares: Tensor


class Router(nn.Linear):
    """(T, C) -> Routes. Parameters: weight (E, C), bias (E,) or none."""

    scales_input = False  # True: routing weights multiply the experts' input instead of their output

    def __init__(self, hidden_size: int, num_experts: int, experts_per_token: int, bias: bool = False) -> None:
        super().__init__(hidden_size, num_experts, bias)
        self.experts_per_token = experts_per_token

    def forward(self, x: Tensor) -> Routes:  # type: ignore[override]
        wide = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # meta tensors have no autocast
            return self.route(nn.functional.linear(x.to(wide), self.weight.to(wide), bias))

    def route(self, logits: Tensor) -> Routes:
        """Choose experts by logits (T, E)."""
        raise NotImplementedError


class SoftmaxTopK(Router):
    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        experts_per_token: int,
        bias: bool = False,
        normalise: bool = True,
    ) -> None:
        super().__init__(hidden_size, num_experts, experts_per_token, bias)
        self.normalise = normalise

    def route(self, logits: Tensor) -> Routes:
        shares = logits.softmax(dim=-1)
        weights, experts = shares.topk(self.experts_per_token, dim=-1)  # (T, E) -> (T, K) each
        if self.normalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routes(experts, weights, shares)


class TopKSoftmax(Router):
    def route(self, logits: Tensor) -> Routes:
        chosen, experts = logits.topk(self.experts_per_token, dim=-1)
        return Routes(experts, chosen.softmax(dim=-1), logits.softmax(dim=-1))


class TopKSigmoid(Router):
    scales_input = True

    def route(self, logits: Tensor) -> Routes:
        scores = logits.sigmoid()
        # Logits choose, since large logits all have score 1. Shares are DeepSeek-V3's, arXiv 2412.19437, eq. 19.
        chosen, experts = logits.topk(self.experts_per_token, dim=-1)
        return Routes(experts, chosen.sigmoid(), scores / scores.sum(dim=-1, keepdim=True))


class RouterSpec(Strict):
    """Base of every router's spec."""

    type: str

    def build(self, hidden_size: int, num_experts: int, experts_per_token: int, bias: bool) -> Router:
        raise NotImplementedError


@ROUTERS.register
class SoftmaxTopKSpec(RouterSpec):
    """`router: {type: softmax-topk, normalise: true}`"""

    type: Literal["softmax-topk"] = "softmax-topk"
    normalise: bool = True

    def build(self, hidden_size: int, num_experts: int, experts_per_token: int, bias: bool) -> SoftmaxTopK:
        return SoftmaxTopK(hidden_size, num_experts, experts_per_token, bias, self.normalise)


@ROUTERS.register
class TopKSoftmaxSpec(RouterSpec):
    """`router: {type: topk-softmax}`"""

    type: Literal["topk-softmax"] = "topk-softmax"

    def build(self, hidden_size: int, num_experts: int, experts_per_token: int, bias: bool) -> TopKSoftmax:
        return TopKSoftmax(hidden_size, num_experts, experts_per_token, bias)


@ROUTERS.register
class TopKSigmoidSpec(RouterSpec):
    """`router: {type: topk-sigmoid}`"""

    type: Literal["topk-sigmoid"] = "topk-sigmoid"

    def build(self, hidden_size: int, num_experts: int, experts_per_token: int, bias: bool) -> TopKSigmoid:
        return TopKSigmoid(hidden_size, num_experts, experts_per_token, bias)
