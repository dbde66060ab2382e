"""SwiGLU: gated MLP (Shazeer, arXiv 2002.05202, eq. 6).

    y = W_down( silu(W_gate x) * (W_up x) )

Three matrices; gate and up widen to intermediate_size, down comes back. The paper has no biases; they are an option.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from miniwin.blocks.mlps.base import GatedMLP, GatedSpec
from miniwin.blocks.native import rows
from miniwin.blocks.registry import MLPS


class SwiGLU(GatedMLP):
    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        if gate.dtype != up.dtype or not rows.fit(gate.shape[-1], gate, up):
            return nn.functional.silu(gate) * up
        gate, up = gate.contiguous(), up.contiguous()
        if not torch.is_grad_enabled():
            return rows.swiglu(gate, up)
        return _Gated.apply(gate, up)  # type: ignore[no-any-return]


class _Gated(torch.autograd.Function):
    """silu(gate) * up by the C kernels: one pass each way. Only gate and up are kept for the backward."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return rows.swiglu(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return rows.swiglu_backward(grads[0].contiguous(), *ctx.saved_tensors)


@MLPS.register
class SwiGLUSpec(GatedSpec):
    """`mlp: {type: swiglu, intermediate_size: 384}`"""

    LATER: ClassVar[frozenset[str]] = frozenset({"bias"})

    type: Literal["swiglu"] = "swiglu"

    def build(self, hidden_size: int) -> SwiGLU:
        return SwiGLU(hidden_size, self.intermediate_size, self.bias)
