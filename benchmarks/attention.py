"""The attention operator of a local layer, forward and backward, against peers that compute the same.

    useful FLOPs forward = 4 D H * sum over queries of the keys they see

Ours gets the layout of our models, (B, N, H, D). Each peer gets the layout that it wants, prepared beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.case import OURS, Case, Run, Work
from benchmarks.gate import agree
from benchmarks.machine import fastest_square
from benchmarks.peers import attention as peers
from miniwin.blocks import AttentionCall, attend, native
from miniwin.blocks.attention_ops import reference

HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64  # of miniwin-512
OPERATORS = "miniwin, torch's operators"  # without kernels of ours
MASKED, AUTHORS = "SDPA, a banded mask made beforehand", "SDPA as the authors call it"
CAUSAL, LOCAL, MATMUL = "SDPA, causal (sees all)", "local-attention", "a square matrix product"
FLEX, FLEX_BEST = "FlexAttention, compiled", "FlexAttention, compiled, its fastest blocks"


@dataclass(frozen=True)
class Shape:
    """One case: N tokens, window W. full: also the peers that need a mask of N x N; causal: full causal
    attention, which needs none; flex, package: these two peers.

    square: side of a matrix product that says what the machine can do, by the library that is best at it, measured in
    turn with the others; 0 is none.
    """

    length: int
    window: int
    dtype: torch.dtype = torch.float32
    backward: bool = False
    full: bool = True
    causal: bool = True
    flex: bool = False
    package: bool = False
    square: int = 0
    heads: int = HEADS
    kv_heads: int = KV_HEADS
    head_dim: int = HEAD_DIM

    @property
    def what(self) -> str:
        return "forward+backward" if self.backward else "forward"

    @property
    def series(self) -> str:
        return f"attention/{self.what}/W={self.window}/{str(self.dtype).removeprefix('torch.')}"

    @property
    def flops(self) -> float:
        w = min(self.window, self.length)
        return 4.0 * self.head_dim * self.heads * (w * (w + 1) / 2 + (self.length - w) * w)


def case(shape: Shape, budget: float = 6.0) -> Case:
    return Case(
        name=f"{shape.series}/N={shape.length}",
        series=shape.series,
        at=shape.length,
        make=lambda: work(shape),
        tokens=shape.length,
        budget=budget,
    )


def work(shape: Shape) -> Work:
    torch.manual_seed(0)
    sizes = [shape.heads, shape.kv_heads, shape.kv_heads]
    grown = [torch.randn(1, shape.length, h, shape.head_dim, dtype=shape.dtype) for h in sizes]  # (B, N, H, D)
    q, k, v = (t.requires_grad_(shape.backward) for t in grown)
    call = AttentionCall(q, k, v, scale=shape.head_dim**-0.5, window=shape.window)
    check_ends(call, shape)
    upstream = torch.randn_like(q)
    ours = _run(lambda: attend(call), [q, k, v], upstream)
    made = Work(
        {OURS: ours}, gate="head and tail equal to the reference backend; each peer's output and gradients to ours"
    )
    made.flops[OURS] = shape.flops
    if shape.square:
        square = torch.randn(shape.square, shape.square, dtype=shape.dtype)
        made.sides[MATMUL] = fastest_square(square)
        made.flops[MATMUL] = 2.0 * shape.square**3

    theirs = [t.detach().transpose(1, 2).contiguous().requires_grad_(shape.backward) for t in (q, k, v)]
    turned = upstream.transpose(1, 2).contiguous()
    expected = _answers(ours, [q, k, v], shape.backward)

    def offer(name: str, build: Callable[[], peers.Attend], same: bool = True) -> None:
        def check(run: Run) -> None:
            if same:
                for mine, answer in zip(expected, _answers(run, theirs, shape.backward), strict=True):
                    agree(f"{name} and ours", answer.transpose(1, 2), mine)

        made.offer(name, lambda: _run(build(), theirs, turned), check)

    def operators() -> Run:
        def attended() -> Tensor:
            with native.without():
                return attend(call)

        return _run(attended, [q, k, v], upstream)

    def equal(run: Run) -> None:
        for mine, answer in zip(expected, _answers(run, [q, k, v], shape.backward), strict=True):
            agree(f"{OPERATORS} and ours", answer, mine)

    made.offer(OPERATORS, operators, equal)
    if shape.full:
        offer(MASKED, lambda: peers.masked(*theirs, shape.window))
        offer(AUTHORS, lambda: peers.as_authors(*theirs, shape.window))
    if shape.causal:
        offer(CAUSAL, lambda: peers.causal(*theirs), same=False)
    if shape.flex and not shape.backward:
        offer(FLEX, lambda: peers.flex(*theirs, shape.window))
        offer(FLEX_BEST, lambda: peers.flex_fastest(*theirs, shape.window))
    if shape.package:
        offer(LOCAL, lambda: peers.local_attention(*theirs, shape.window))
    return made


def _run(attention: Callable[[], Tensor], inputs: list[Tensor], upstream: Tensor) -> Run:
    """Forward, and, where the inputs want gradients, backward from a fixed gradient of the output."""

    def run() -> Tensor:
        if not inputs[0].requires_grad:
            with torch.no_grad():
                return attention()
        for t in inputs:
            t.grad = None
        out = attention()
        out.backward(upstream)
        return out

    return run


def _answers(run: Run, inputs: list[Tensor], backward: bool) -> list[Tensor]:
    """The output, and the gradients of the inputs, copied."""
    out = run()
    assert isinstance(out, Tensor)
    found = [out, *(t.grad for t in inputs if t.grad is not None)] if backward else [out]
    return [t.detach().clone() for t in found]


def check_ends(call: AttentionCall, shape: Shape, rows: int = 96) -> None:
    """The first and the last queries against the reference backend: the whole reference would take N^2 of memory."""
    with torch.no_grad():
        out = attend(call)
        n, w = shape.length, shape.window
        for first, last in {(0, min(rows, n)), (max(n - rows, 0), n)}:
            key = max(0, first - w + 1)
            part = AttentionCall(
                call.q[:, first:last].float(),
                call.k[:, key:last].float(),
                call.v[:, key:last].float(),
                scale=call.scale,
                window=w,
            )
            agree(f"queries {first} to {last} and the reference", out[:, first:last], reference.run(part))
