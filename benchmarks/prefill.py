"""Prefill of a prompt: one call takes all tokens, fills the cache and returns the last token's logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.case import OURS, Case, Run, Work
from benchmarks.gate import agree
from benchmarks.models import AUTHORS, Side, side
from miniwin.specs import ModelSpec

CHECKED = 999


def case(spec: ModelSpec, length: int, peers: Sequence[str], budget: float = 20.0) -> Case:
    return Case(
        name=f"prefill/{spec.name}/N={length}",
        series=f"prefill/{spec.name}",
        at=length,
        make=lambda: work(spec, length, peers),
        tokens=length,
        budget=budget,
    )


def work(spec: ModelSpec, length: int, peers: Sequence[str]) -> Work:
    ids = token_ids(spec, length)
    few = ids[:, : min(length, CHECKED)]
    ours = _model(OURS, spec)
    with torch.no_grad():
        expected = ours.prefill(few)
    made = Work({OURS: _run(ours, ids)}, gate="none here: the shorter ones of this series have it")
    for name in peers:

        def make(name: str = name) -> Run:
            theirs = _model(name, spec)
            if name == AUTHORS:
                with torch.no_grad():
                    agree("prefill and the authors' code", expected, theirs.prefill(few))
                made.gate = f"the last logits of at most {CHECKED} tokens equal to those of the authors' code restated"
            return _run(theirs, ids)

        made.offer(name, make)
    return made


def _model(name: str, spec: ModelSpec) -> Side:
    model = side(name, spec)
    model.module.eval()
    return model


def _run(model: Side, ids: torch.Tensor) -> Run:
    def run() -> None:
        with torch.no_grad():
            model.prefill(ids)

    return run


def token_ids(spec: ModelSpec, length: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(0, spec.vocab_size, (rows, length), generator=torch.Generator().manual_seed(2))
