"""Muon: momentum whose update is made orthogonal, for matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    m <- mu m + (1 - mu) g;   u = mu m + (1 - mu) g                    momentum, Nesterov's
    O = orthogonal factor of u, about: U V^T of its singular value decomposition, by five steps of Newton-Schulz,
        X <- a X + (b X X^T + c (X X^T)^2) X  from  u / |u|_F
    W <- (1 - lr * decay) W - lr * 0.2 sqrt(max(rows, columns)) O

The last factor gives an update the size that AdamW's has, so that learning rate and weight decay can be AdamW's
(Liu et al., arXiv 2502.16982, section 2.2). The five steps do not converge: singular values end between 0.7 and 1.2,
which does as well and is quicker (the coefficients are Jordan's). Deviation: the steps are in bfloat16 on CUDA only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


class Muon(Optimizer):
    """For matrices only; those of one shape are made orthogonal together."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        wrong = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]
        if wrong:
            raise ValueError(f"Muon: got parameters of shapes {wrong}; expected matrices: give the rest to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "no step of this kind needs the loss again"
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonal(torch.stack([self._pushed(p, group["momentum"]) for p in parameters]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.to(parameter.dtype), alpha=-size)

    def _pushed(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state, grad = self.state[parameter], parameter.grad
        assert grad is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(grad, 1 - momentum)
        return grad.lerp(buffer, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> the same, each with singular values near 1. A zero matrix stays one."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.transpose(-1, -2) if tall else matrices  # the smaller side is squared
    x = x.to(torch.bfloat16 if x.is_cuda else torch.promote_types(x.dtype, torch.float32))
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = x @ x.transpose(-1, -2)
        x = a * x + torch.baddbmm(square, square, square, beta=b, alpha=c) @ x
    return x.transpose(-1, -2) if tall else x


class Together:
    """Several optimizers that share out a model's parameters, as one."""

    def __init__(self, **parts: Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
