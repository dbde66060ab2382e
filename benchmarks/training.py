"""A training step: forward, loss of the next token, backward, clipping, AdamW.

Each side trains as its own users do. Ours has the loss, the optimizer and the clipping of `miniwin train`; the authors'
and transformers' models have cross-entropy of all logits. All but COMPILED run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from benchmarks.case import OURS, Case, Run, Work
from benchmarks.gate import agree
from benchmarks.models import AUTHORS, WITH_MKL, Ours, Side, built, check_others_are_chosen, side
from benchmarks.prefill import token_ids
from miniwin.blocks import native
from miniwin.blocks.matmul_library import MKL, Product
from miniwin.specs import ModelSpec
from miniwin.specs.train import OptimizerSpec
from miniwin.training.compilation import compile_layers
from miniwin.training.loss import next_token_loss
from miniwin.training.optimizer import make_optimizer

PLAIN, COMPILED = "miniwin, plain float32", "miniwin, compile: true"
TORCH = f"{PLAIN}, torch's operators"  # the same without kernels of ours
PLAINEST = f"{AUTHORS}, float32"  # none of our layers and kernels either
CLIP = 1.0
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
GATE = "loss and gradients in float32 equal to those of cross-entropy of all the logits"


def case(
    spec: ModelSpec, length: int, rows: int, dtype: torch.dtype, peers: Sequence[str], budget: float = 20.0
) -> Case:
    series = f"train/{spec.name}/{NAMES[dtype]}"
    return Case(
        name=f"{series}/{rows}x{length}",
        series=series,
        at=length,
        make=lambda: work(spec, length, rows, dtype, peers),
        tokens=rows * length,
        budget=budget,
    )


def work(spec: ModelSpec, length: int, rows: int, dtype: torch.dtype, peers: Sequence[str]) -> Work:
    """peers: AUTHORS, titles of transformers' models, PLAINEST; of our model PLAIN, an ordinary step in float32 of the
    same layers with torch's own products, TORCH, and COMPILED; and WITH_MKL, with nothing changed but the products."""
    ids = token_ids(spec, length + 1, rows)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    check(spec, inputs[:1, :96], targets[:1, :96])
    made = Work({OURS: our_step(spec, inputs, targets, dtype)}, gate=GATE)
    for name in peers:
        made.offer(name, lambda name=name: their_step(name, spec, inputs, targets, dtype))  # type: ignore[misc]
    return made


class OurStep(Ours):
    """Ours, with the loss that `miniwin train` computes."""

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        return next_token_loss(self.model, self.model.hidden(ids), targets)


def our_step(
    spec: ModelSpec,
    inputs: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    compiled: bool = False,
    product: Product | None = None,
) -> Run:
    model = OurStep(built(spec, product=product))
    if compiled:
        compile_layers(model.model, torch.device("cpu"))
    return _step(model, make_optimizer(model.model, OptimizerSpec()), inputs, targets, dtype)


def their_step(name: str, spec: ModelSpec, inputs: Tensor, targets: Tensor, dtype: torch.dtype) -> Run:
    if name == COMPILED:
        run = our_step(spec, inputs, targets, dtype, compiled=True)
        run()  # compiles, which takes so long that it is no part of the case's budget
        return run
    if name == WITH_MKL:
        check_others_are_chosen()
        return our_step(spec, inputs, targets, dtype, product=MKL)
    if name == TORCH:
        return _without_kernels(lambda: their_step(PLAIN, spec, inputs, targets, dtype))
    if name in (PLAIN, PLAINEST):
        dtype = torch.float32
    model = Ours(built(spec, product=MKL)) if name == PLAIN else side(AUTHORS if name == PLAINEST else name, spec)
    # Of transformers' trainer the default is the fused one; of torch, and so of the others, it is not.
    fused = None if name in (PLAIN, PLAINEST, AUTHORS) else True
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=1e-4, fused=fused)
    return _step(model, optimizer, inputs, targets, dtype)


def _without_kernels(make: Callable[[], Run]) -> Run:
    """A step that is built and run without our kernels."""
    with native.without():
        made = make()

    def run() -> object:
        with native.without():
            return made()

    return run


def _step(model: Side, optimizer: Any, inputs: Tensor, targets: Tensor, dtype: torch.dtype) -> Run:
    model.module.train()
    parameters = list(model.module.parameters())

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(dtype):
            loss = model.loss(inputs, targets)
        loss.backward()
        clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.detach())

    return run


def _autocast(dtype: torch.dtype) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def check(spec: ModelSpec, inputs: Tensor, targets: Tensor) -> None:
    """Our step against plain cross-entropy on a few tokens: the loss, and every gradient."""
    fast, plain = OurStep(built(spec)), Ours(built(spec))
    losses = []
    for model in (fast, plain):
        model.module.train()
        loss = model.loss(inputs, targets)
        loss.backward()
        losses.append(loss)
    agree("the loss", losses[0], losses[1])
    for (name, mine), theirs in zip(fast.module.named_parameters(), plain.module.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        agree(f"the gradient of {name}", mine.grad, theirs.grad)
