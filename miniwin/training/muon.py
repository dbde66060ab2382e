"""Muon for sharded matrices. Its update needs the whole matrix, so each one is gathered, updated and shared out again.

Every process computes every matrix, and only one matrix is whole at a time. The numbers are those of one process. (On
shards as they are, torch's Muon takes products of parts in bfloat16, and rounds differently.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Muon


class ShardedMuon(Muon):
    """torch.optim.Muon of parameters that are DTensors, as its momentum is. All processes step together."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            options: dict[str, Any] = {name: value for name, value in group.items() if name != "params"}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                matrix = nn.Parameter(parameter.full_tensor())
                matrix.grad = parameter.grad.full_tensor()
                one = Muon([matrix], **options)
                if held := self.state[parameter]:
                    one.state[matrix]["momentum_buffer"] = held["momentum_buffer"].full_tensor()
                one.step()
                parameter.copy_(part_of(matrix.detach(), parameter))
                held["momentum_buffer"] = part_of(one.state[matrix]["momentum_buffer"], parameter).clone()


def part_of(whole: torch.Tensor, like: DTensor) -> DTensor:
    """This process's part of a tensor that every process has, sharded like another one."""
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
