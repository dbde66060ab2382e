"""Decoding token by token on a long context. Caches are filled with random numbers, the same for every side, instead of
by a prefill. Their values do not change the time, and a prompt of a million tokens would take some sides hours.

    local   our model with only local layers, at the longest and the shortest context: the time should be equal
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.case import OURS, Case, Run, Work
from benchmarks.gate import agree
from benchmarks.models import AUTHORS, INT8, PIECE, Decoding, local_only, random_piece, side
from miniwin.specs import ModelSpec

SHORT = "miniwin at the shortest context"


def case(
    spec: ModelSpec, context: int, peers: Sequence[str], tokens: int = 8, budget: float = 6.0, piece: int = PIECE
) -> Case:
    return Case(
        name=f"decode/{spec.name}/context={context}",
        series=f"decode/{spec.name}",
        at=context,
        make=lambda: work(spec, context, peers, tokens, piece),
        tokens=tokens,
        budget=budget,
    )


def local_case(
    spec: ModelSpec, short: int, long: int, tokens: int = 16, budget: float = 6.0, piece: int = PIECE
) -> Case:
    return Case(
        name=f"decode/{spec.name}, local layers only/context={long}",
        series=f"decode/{spec.name}, local layers only",
        at=long,
        make=lambda: local_work(spec, short, long, tokens, piece),
        tokens=tokens,
        budget=budget,
    )


def work(spec: ModelSpec, context: int, peers: Sequence[str], tokens: int, piece: int = PIECE) -> Work:
    filling = random_piece(spec, piece)
    token = torch.zeros(1, 1, dtype=torch.int64)
    with torch.no_grad():
        ours = _decoding(OURS, spec, filling, context)
        expected = ours.step(token)
    made = Work({OURS: _run(ours, token, tokens)}, gate="none here")
    for name in peers:

        def make(name: str = name) -> Run:
            theirs = _decoding(name, spec, filling, context)
            with torch.no_grad():
                logits = theirs.step(token)
            if name == INT8:
                assert (logits - expected).abs().max() < 0.2 * expected.std(), "int8 weights: other logits"
            if name == AUTHORS:
                agree("decoding and the authors' code", expected, logits)
                made.gate = "logits equal to those of the authors' code restated, same weights and cache"
            return _run(theirs, token, tokens)

        made.offer(name, make)
    return made


def local_work(spec: ModelSpec, short: int, long: int, tokens: int, piece: int = PIECE, device: str = "cpu") -> Work:
    local = local_only(spec)
    filling, token = random_piece(local, piece).to(device), torch.zeros(1, 1, dtype=torch.int64, device=device)
    both = [_decoding(OURS, local, filling, context) for context in (long, short)]
    with torch.no_grad():
        # Contexts that are the same modulo period and filling leave the same ring behind.
        agree("the two contexts' logits", both[0].step(token), both[1].step(token))
    runs = [_run(each, token, tokens) for each in both]
    return Work({OURS: runs[0], SHORT: runs[1]}, gate="logits at both contexts equal: their last W keys are the same")


@torch.no_grad()
def _decoding(name: str, spec: ModelSpec, filling: torch.Tensor, context: int) -> Decoding:
    model = side(name, spec)
    model.module.eval().to(filling.device)
    return model.decoder(filling, context)


def _run(decoding: Decoding, token: torch.Tensor, tokens: int) -> Run:
    def run() -> None:
        with torch.no_grad():
            for _ in range(tokens):
                decoding.step(token)

    return run
