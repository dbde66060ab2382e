"""AdamW (arXiv:1711.05101) with weight decay on matrices only.

Decay pulls weights towards zero. That makes sense for the matrices of linear maps; the gains of norms, scales
per head and other vectors would lose their meaning, and the rows of an embedding are decayed whether or not
their token occurs.
"""

from __future__ import annotations

import torch
from torch import nn

from miniwin.specs.train import OptimizerSpec


def make_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """The learning rate is a placeholder: the schedule sets it at every step."""
    decayed, plain = split_parameters(model)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=True)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with weight decay and without. A tied head is an embedding."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():  # each shared parameter once
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
            (decayed if matrix else plain).append(parameter)
    return decayed, plain
