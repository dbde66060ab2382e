"""torch.compile for training: each layer in two graphs, with the attention operator between them as it is.

The operator is not compiled: its backends are kernels already, and the backend is chosen at run time. Experts are not
compiled: each is called with another number of tokens every time. Evaluations during training run uncompiled: every
new cache or length of text would be compiled again.

The gain is in what surrounds attention: norms, rotations, gates and residual sums, which eager mode sends through
memory one by one. Compiling happens at the first step and takes seconds to a minute, too long for a short run.

On a CPU with our own kernels (blocks/native) there is no gain: the kernels do the same, and compiled layers do not use
them. Nor do compiled layers use oneDNN's products (blocks/matmul_library.py): torch.compile does not accept that
operator in the code that it compiles.
"""

from __future__ import annotations

from typing import Any

import torch

from miniwin.blocks import Attention, Decoder, MixtureOfExperts
from miniwin.blocks.attention_ops import attend
from miniwin.blocks.mlps.moe import routed
from miniwin.blocks.spec import UserError


def compile_layers(decoder: Decoder, device: torch.device) -> None:
    """Have every layer compiled when it first runs. Parameters and their names stay the same.

    Raises:
        UserError: this machine cannot compile (on a CPU it takes a C++ compiler).
    """
    try:
        torch.compile(torch.square, dynamic=False)(torch.ones(3, device=device))
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"compile: true was asked for, and torch.compile does not work here ({type(error).__name__}: {first}); "
            "install a C++ compiler, or set compile: false"
        ) from error
    for module in decoder.modules():
        if isinstance(module, Attention):
            module.attend = torch.compiler.disable(attend)  # type: ignore[method-assign]
        if isinstance(module, MixtureOfExperts):
            module.routed = torch.compiler.disable(routed)  # type: ignore[method-assign]
    for layer in decoder.layers:
        layer.compile(dynamic=False)
        _only_in_training(layer)


def _only_in_training(layer: Any) -> None:
    """Make a compiled layer run uncompiled in eval mode."""
    compiled = layer._compiled_call_impl

    def call(*inputs: Any, **options: Any) -> Any:
        return (compiled if layer.training else layer._call_impl)(*inputs, **options)

    layer._compiled_call_impl = call
