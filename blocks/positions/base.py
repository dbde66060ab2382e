"""The contract of a position encoding.

An encoding may act in three places, and a subclass overrides only those it uses:

    rotate      queries and keys, before the scores           (rotary encodings)
    score_bias  added to the scaled scores, by distance        (ALiBi)
    query_scale multiplies each query by a function of how many keys it can see (logit scaling)

Shapes: B batch, N tokens, H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

# Distances i - j, (n, m) int64 -> bias (H, n, m) float32, added to the scaled scores.
ScoreBias = Callable[[Tensor], Tensor]


class PositionEncoding(nn.Module):
    """No encoding at all: every hook does nothing."""

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate queries or keys x (B, N, H, D) by their positions (1 or B, N); same shape and dtype."""
        return x

    def score_bias(self) -> ScoreBias | None:
        """The bias that this encoding adds to scores, or None."""
        return None

    def query_scale(self, visible: Tensor, total: int) -> Tensor | None:
        """Per-query multiplier, broadcastable to (B, N, H, 1), or None.

        visible (1 or B, N): how many keys each query sees, itself included. total: keys in this call.
        """
        return None


def located(path: str, message: str) -> PydanticCustomError:
    """A validation error of a field deeper than the model that noticed it: `path` is relative to that model."""
    return PydanticCustomError("located", "{message}", {"message": message, "at": path})


def located_all(problems: list[tuple[str, str]]) -> PydanticCustomError:
    """Several of them at once, each a path and a message."""
    path, message = problems[0]
    return PydanticCustomError("located", "{message}", {"message": message, "at": path, "all": problems})


def angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """positions (...,) times frequencies (K,) in float64 -> (..., K): float32 would lose 1e-2 rad at 1e5 tokens."""
    return positions.to(torch.float64).unsqueeze(-1) * frequencies.to(positions.device)


def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (c, c + D/2) of x (B, N, H, D) by cos, sin (1 or B, N, D/2), in float32.

    (a, b) -> (a cos - b sin, b cos + a sin).
    """
    return _Rotate.apply(x, cos.unsqueeze(-2), sin.unsqueeze(-2))  # type: ignore[no-any-return]


class _Rotate(torch.autograd.Function):
    """Written out, since autograd would keep four products and run three times the passes over memory.

    A rotation's backward is the rotation the other way round, so nothing of x is kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sense: float) -> Tensor:
    a, b = x.float().chunk(2, dim=-1)  # (B, N, H, D/2) each
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    first, second = out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-sense)
    torch.mul(b, cos, out=second).addcmul_(a, sin, value=sense)
    return out.to(x.dtype)
