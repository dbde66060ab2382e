"""Tensors that claim to be on a GPU, to test decisions that come before any computation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention_ops import AttentionCall


class Cuda:
    """Stands for a CUDA tensor. It has only what `declines` looks at."""

    def __init__(self, t: Tensor) -> None:
        self.shape, self.dtype, self.requires_grad = t.shape, t.dtype, t.requires_grad
        self.device = torch.device("cuda")


def on_cuda(call: AttentionCall) -> Any:
    return replace(call, **{name: Cuda(getattr(call, name)) for name in ("q", "k", "v")})
