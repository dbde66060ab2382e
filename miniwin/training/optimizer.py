"""The optimizer of a run: AdamW (arXiv:1711.05101), or Muon for the matrices of the layers and AdamW for the rest.

Muon is torch's. Its momentum is made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon) and scaled to
the size of AdamW's update, so that AdamW's learning rate and weight decay fit both (Liu et al., arXiv 2502.16982,
section 2.2). Its Newton-Schulz steps are in bfloat16 on every device.

AdamW's weight decay is for the matrices of linear maps only. Decay pulls weights towards zero. The gains of norms, the
scales of heads and other vectors would lose their meaning. The rows of an embedding would decay even in steps without
their token, and so would those of a table of positions, which its module names in `undecayed`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Muon, Optimizer

from miniwin.specs.train import OptimizerSpec

FUSED = ("cpu", "cuda", "mps", "xpu")  # devices on which torch has AdamW as one pass over all parameters


def make_optimizer(model: nn.Module, spec: OptimizerSpec, muon: type[Muon] = Muon) -> Optimizer | Together:
    """The optimizer of a model. Its learning rate is a placeholder: the schedule sets it at every step.

    muon: the class for `type: muon`.
    """
    matrices = layer_matrices(model) if spec.type == "muon" else []
    taken = {id(parameter) for parameter in matrices}
    decayed, plain = ([p for p in part if id(p) not in taken] for part in split_parameters(model))
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    fused = all(p.device.type in FUSED for p in model.parameters())
    adamw = torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=fused)
    if not matrices:  # with `type: muon` too, if all of them are frozen
        return adamw
    of_matrices = muon(
        matrices,
        lr=spec.lr,
        momentum=spec.muon_momentum,
        weight_decay=spec.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Together(muon=of_matrices, adamw=adamw)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters: (those with weight decay, those without). A tied head is an embedding."""
    tables = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.Embedding) or name in getattr(module, "undecayed", ())
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():  # each shared parameter once
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and id(parameter) not in tables
            (decayed if matrix else plain).append(parameter)
    return decayed, plain


def layer_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Trainable weights of the linear maps inside the layers: not of the head, nor tables of positions."""
    layers = model.get_submodule("layers")
    linear = [module for module in layers.modules() if isinstance(module, nn.Linear)]
    return [p for module in linear for p in module.parameters(recurse=False) if p.ndim == 2 and p.requires_grad]


class Together:
    """Several optimizers, each with a part of the model's parameters, used as one."""

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
