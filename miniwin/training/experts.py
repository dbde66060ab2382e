"""Mixtures of experts on several processes, which have to reduce the gradients of the same parameters.

An expert that no token of a process chose has no gradient there. It is given one of zeros. After the passes of a step,
an expert's gradient that is zero in all processes is dropped: the optimizer then passes over it, as in one process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import Decoder, MixtureOfExperts
from miniwin.training.distributed import Group


class Experts:
    """The experts of a decoder, if it has any."""

    def __init__(self, decoder: Decoder, group: Group) -> None:
        mixtures = [module for module in decoder.modules() if isinstance(module, MixtureOfExperts)]
        for module in mixtures:
            module.register_forward_hook(_with_every_expert)
        self.group = group
        every = [parameter for module in mixtures for parameter in module.experts.parameters()]
        self.parameters = [parameter for parameter in every if parameter.requires_grad]

    def drop_unused(self) -> None:
        """Leave the experts that no process had tokens for without a gradient. Called by all processes together."""
        if not self.parameters:
            return
        grads: list[Any] = [parameter.grad for parameter in self.parameters]  # sharded ones where parameters are
        own = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in grads]
        used = self.group.any(*torch.stack([grad.any() for grad in own]).tolist())
        for parameter, needed in zip(self.parameters, used, strict=True):
            if not needed:
                parameter.grad = None


def _with_every_expert(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Let the loss depend on every expert, with a gradient of zero."""
    if not (module.training and torch.is_grad_enabled()):
        return output
    experts: Any = module.experts
    return output + 0.0 * torch.stack([parameter.flatten()[0] for parameter in experts.parameters()]).sum()
