"""Compiled layers: the same numbers, nothing compiled anew for other tokens, and evaluations as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import LOCAL, attention, enliven, largest, random_ids, tiny_spec
from torch._dynamo.utils import counters

from miniwin.blocks import Decoder
from miniwin.training.compilation import compile_layers

EXPERT = {"type": "swiglu", "intermediate_size": 24}
MOE = {"type": "moe", "num_experts": 5, "experts_per_token": 2, "expert": EXPERT, "router": {"type": "topk-softmax"}}
MODELS: dict[str, dict[str, Any]] = {
    "p-rope, experts": {"S": {"attention": attention(7, LOCAL), "mlp": MOE}},
    "rope": {"G": attention(None, {"type": "rope"})},
    "nope, t5": {"G": attention(None, {"type": "nope"}), "T": attention(None, {"type": "t5"})},
}


def built(name: str) -> Decoder:
    return enliven(tiny_spec(MODELS[name]).build())


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Compiles layers, but for generating code; how many graphs there are is what comes back afterwards."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend="eager", **options))
    torch._dynamo.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(("name", "documents"), [*((name, True) for name in MODELS), ("rope", False)])
def test_other_tokens_are_not_compiled_anew(name: str, documents: bool, compiling: Callable[[], int]) -> None:
    compiled, plain = built(name), built(name)
    compile_layers(compiled, torch.device("cpu"))
    graphs = []
    for seed in range(5):
        ids = random_ids(tiny_spec(), 2, 40, seed)
        apart = (ids < 6).long().cumsum(1) if documents else None
        losses = []
        for decoder in (compiled, plain):
            decoder.zero_grad()
            loss = decoder.hidden(ids, documents=apart).square().mean()
            loss.backward()
            losses.append(loss)
        assert largest(*losses) < 1e-5
        for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or largest(one.grad, other.grad) < 1e-4  # type: ignore[arg-type]
        graphs.append(compiling())
    assert graphs[0] > 1 and graphs[-1] == graphs[1], graphs


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_evaluations_are_not_compiled(name: str, compiling: Callable[[], int]) -> None:
    compiled, plain = built(name), built(name).eval()
    compile_layers(compiled, torch.device("cpu"))
    compiled.eval()
    before = compiling()
    ids = random_ids(tiny_spec(), 1, 30)
    caches = [decoder.new_cache() for decoder in (compiled, plain)]
    for part in ids.split([3, 1, 1, 9, 16], 1):
        logits = [decoder(part, cache=cache) for decoder, cache in zip((compiled, plain), caches, strict=True)]
        assert torch.equal(*logits)
    assert compiling() == before
