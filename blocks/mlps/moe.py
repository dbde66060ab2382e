"""Mixture of experts: each token goes through the few MLPs that a router chooses (Shazeer et al., arXiv 1701.06538).

    y = sum over the K experts e chosen of w_e * expert_e(x)      (+ shared(x): an MLP that every token goes through)

A router may scale the experts' input instead: expert_e(w_e * x) (Llama 4). The code loops over experts, never over
tokens. An expert without tokens is not run, so decoding one token runs K experts. Experts have no capacity limit, and
no token is dropped.

Load balance (Switch Transformer, arXiv 2101.03961, eq. 4), of one training pass over T tokens:

    loss = balance_loss * E * sum_e f_e * P_e;   f_e: share of the T * K assignments, P_e: mean of the router's shares

f sums to 1 for any K, so at perfect balance the loss is `balance_loss`. (Hugging Face's models divide the assignments
by T alone, which gives K times as much, and balance all layers together. Here each layer is balanced by itself.) All
tokens count, padding too: training batches have no padding. The training loop calls `take_auxiliary_loss`.

Shapes: B batch, N length, T = B * N tokens, C hidden_size, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from miniwin.blocks.mlps.base import MLPSpec
from miniwin.blocks.mlps.routers import Router, Routes
from miniwin.blocks.positions.base import located
from miniwin.blocks.registry import MLPS, ROUTERS
from miniwin.blocks.spec import PositiveInt, Real


def routed(experts: nn.ModuleList, tokens: Tensor, routes: Routes, scales_input: bool) -> Tensor:
    """Run the experts: (T, C) -> (T, C), summed in float32 at least.

    Assignments are sorted by expert, so that each expert takes one run of them.
    """
    chosen = routes.experts.flatten()  # (T, K) -> (T * K)
    order = chosen.argsort(stable=True)
    # The token (T * K) and the weight (T * K, 1) of each sorted assignment.
    rows, weights = order // routes.experts.shape[1], routes.weights.flatten()[order].unsqueeze(-1)
    out = torch.zeros(tokens.shape, dtype=weights.dtype, device=tokens.device)
    end = 0
    for expert, count in zip(experts, loads(chosen, len(experts)), strict=True):
        start, end = end, end + count
        if count == 0:
            continue
        mine, weight = rows[start:end], weights[start:end]  # (n), (n, 1)
        x = tokens.index_select(0, mine)  # (n, C)
        if scales_input:
            y = expert((weight * x).to(x.dtype)).to(out.dtype)
        else:
            y = weight * expert(x)
        out.index_add_(0, mine, y)  # (n, C) into (T, C); no token is twice in `mine`
    return out


class MixtureOfExperts(nn.Module):
    """(..., C) -> (..., C). balance_loss: coefficient of the auxiliary loss; 0 for none."""

    routed = staticmethod(routed)  # in compiled layers replaced by a version that is not compiled

    def __init__(
        self, router: Router, experts: Sequence[nn.Module], shared: nn.Module | None = None, balance_loss: float = 0.0
    ) -> None:
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(experts)
        self.shared = shared
        self.balance_loss = balance_loss
        self._auxiliary: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)  # (B, N, C) -> (T, C)
        routes: Routes = self.router(tokens)
        wanted = self.training and torch.is_grad_enabled() and self.balance_loss > 0
        self._auxiliary = self.balance_loss * imbalance(routes) if wanted else None
        out = self.routed(self.experts, tokens, routes, self.router.scales_input).to(x.dtype)
        if self.shared is not None:
            out = out + self.shared(tokens)
        return out.view(x.shape)

    def take_auxiliary_loss(self) -> Tensor | None:
        """Hand out the balance loss of the last training pass, a scalar, and forget it; None if there is none."""
        loss, self._auxiliary = self._auxiliary, None
        return loss


def loads(chosen: Tensor, num_experts: int) -> list[int]:
    """The number of assignments of each expert. chosen: the expert of each assignment, (T * K).

    On the meta device the choices are unknown, and assignments are spread as evenly as possible.
    """
    if chosen.is_meta:
        return [(len(chosen) + e) // num_experts for e in range(num_experts)]
    counts: list[int] = torch.bincount(chosen, minlength=num_experts).tolist()
    return counts


def imbalance(routes: Routes) -> Tensor:
    """E * sum_e f_e * P_e, a scalar: 1 at perfect balance, at most E. Its gradient goes through P; f is a count."""
    num_experts = routes.shares.shape[1]
    counts = torch.zeros(num_experts, dtype=routes.shares.dtype, device=routes.shares.device)
    chosen = routes.experts.flatten()
    counts.index_add_(0, chosen, torch.ones_like(chosen, dtype=counts.dtype))
    return num_experts * (counts / routes.experts.numel() * routes.shares.mean(dim=0)).sum()


@MLPS.register
class MixtureOfExpertsSpec(MLPSpec):
    """`mlp: {type: moe, num_experts: 8, experts_per_token: 2, expert: {...}, router: {type: softmax-topk}}`

    expert: the MLP of each expert. shared: an MLP that every token goes through as well, or null. router_bias: adds a
    bias to the router's logits. balance_loss: coefficient of the load-balancing loss in training; 0 for none.
    """

    # Fields hold any registered block, this one too: pydantic can build the schema only once all are registered.
    model_config = ConfigDict(defer_build=True)

    type: Literal["moe"] = "moe"
    num_experts: Annotated[PositiveInt, Field(le=65_536)]
    experts_per_token: PositiveInt
    expert: MLPS.field()  # type: ignore[valid-type]
    shared: MLPS.field() | None = None  # type: ignore[valid-type]
    router: ROUTERS.field()  # type: ignore[valid-type]
    router_bias: bool = False
    balance_loss: Annotated[Real, Field(ge=0)] = 0.01

    @model_validator(mode="after")
    def _fits(self) -> MixtureOfExpertsSpec:
        if self.experts_per_token > self.num_experts:
            raise located(
                "experts_per_token",
                f"got {self.experts_per_token}; expected at most num_experts {self.num_experts}: a token goes to each "
                "expert once",
            )
        for name, mlp in (("expert", self.expert), ("shared", self.shared)):
            if isinstance(mlp, MixtureOfExpertsSpec):
                raise located(name, "got a moe; expected one MLP: put the experts of the inner mixture into this one")
        return self

    @property
    def _parts(self) -> tuple[Any, Any, Any]:
        return self.expert, self.shared, self.router

    def build(self, hidden_size: int) -> MixtureOfExperts:
        expert, shared, router = self._parts
        return MixtureOfExperts(
            router.build(hidden_size, self.num_experts, self.experts_per_token, self.router_bias),
            [expert.build(hidden_size) for _ in range(self.num_experts)],
            None if shared is None else shared.build(hidden_size),
            self.balance_loss,
        )

    def parameters(self, hidden_size: int) -> int:
        return self._counted(hidden_size, self.num_experts)

    def active_parameters(self, hidden_size: int) -> int:
        return self._counted(hidden_size, self.experts_per_token)

    def _counted(self, hidden_size: int, experts: int) -> int:
        expert, shared, _ = self._parts
        router = self.num_experts * (hidden_size + self.router_bias)
        always = 0 if shared is None else shared.parameters(hidden_size)
        return int(router + experts * expert.parameters(hidden_size) + always)

    def flops(self, hidden_size: int) -> float:
        expert, shared, _ = self._parts
        always = 0.0 if shared is None else shared.flops(hidden_size)
        router = 2.0 * self.num_experts * hidden_size
        return float(router + self.experts_per_token * expert.flops(hidden_size) + always)
