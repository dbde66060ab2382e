"""torch.compile for training: each layer in two graphs, with the attention operator between them as it is.

The operator is left out on purpose: its backends are kernels already, and which one answers is decided at run time. So
are experts, each of which is called for another number of tokens every time. Evaluations on the way run uncompiled: a
cache, or a text of another length, would be compiled anew at every call.

What is gained lies around it: norms, rotations, gates, residual sums, which eager mode sends through memory one by one.
Compiling takes seconds to a minute and is done at the first step, so that it is not for short runs. On a CPU with
kernels of our own (blocks/native) nothing is gained: they do the same, and compiled layers go without them. They go
without oneDNN's products too (blocks/products.py), whose operator torch.compile takes from nobody but itself.
"""

from __future__ import annotations

from typing import Any

import torch

from miniwin.blocks import Attention, Decoder, MixtureOfExperts
from miniwin.blocks.attention_ops import attend
from miniwin.blocks.mlps.moe import routed
from miniwin.blocks.spec import UserError


def compile_layers(decoder: Decoder, device: torch.device) -> None:
    """Have every layer compiled when it first runs; parameters and their names stay what they are.

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
    compiled = layer._compiled_call_impl

    def call(*inputs: Any, **options: Any) -> Any:
        return (compiled if layer.training else layer._call_impl)(*inputs, **options)

    layer._compiled_call_impl = call
