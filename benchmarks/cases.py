"""What is measured: each case checks that its sides agree, then gives one function to time for each side.

Every case returns `Case(name, ours, sides)`: the ratios in the results are the other sides' time over ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from miniwin.blocks import AttentionCall, Decoder, attend, use_backend
from miniwin.specs import load_model_spec


@dataclass(frozen=True)
class Case:
    name: str
    ours: str
    sides: dict[str, Callable[[], object]]


def cases() -> Iterator[Case]:
    for window in (64, 512):
        yield local_attention(4096, window, backward=False)
        yield local_attention(4096, window, backward=True)
    yield prefill(4096)
    yield decode(8192)


def local_attention(length: int, window: int, backward: bool) -> Case:
    """The default CPU path for a local layer against torch's SDPA with the window as a mask."""
    torch.manual_seed(0)
    q = torch.randn(1, length, 8, 64, requires_grad=backward)
    k, v = (torch.randn(1, length, 4, 64, requires_grad=backward) for _ in range(2))
    call = AttentionCall(q, k, v, scale=64**-0.5, window=window)

    def run(backend: str | None) -> torch.Tensor:
        with use_backend(backend):
            out = attend(call)
        if backward:
            q.grad = k.grad = v.grad = None
            out.sum().backward()
            assert q.grad is not None
            return q.grad
        return out

    _agree(run(None), run("sdpa"))
    what = "forward and backward" if backward else "forward"
    return Case(
        f"local attention, {what}, N={length}, W={window}",
        "miniwin",
        {"miniwin": lambda: run(None), "SDPA with a banded mask": lambda: run("sdpa")},
    )


def prefill(length: int) -> Case:
    """The reference MiniWin against the same size with full attention and RoPE in every layer."""
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (1, length))
    ours, baseline = (load_model_spec(name).build().eval() for name in ("miniwin-1m", "minimind-1m"))

    def run(model: Decoder, backend: str | None = None) -> torch.Tensor:
        with torch.no_grad(), use_backend(backend):
            return model(ids)

    _agree(run(ours), run(ours, "sdpa"))
    return Case(
        f"prefill, 1 M parameters, N={length}",
        "miniwin-1m",
        {
            "miniwin-1m": lambda: run(ours),
            "miniwin-1m with masked SDPA": lambda: run(ours, "sdpa"),
            "minimind-1m": lambda: run(baseline),
        },
    )


def decode(context: int, tokens: int = 32) -> Case:
    """Token by token on a warm cache of `context` tokens."""
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (1, context + tokens))
    sides: dict[str, Callable[[], object]] = {}
    for name in ("miniwin-1m", "minimind-1m"):
        sides[name] = _decoder(load_model_spec(name).build().eval(), ids, context)
    return Case(f"decode {tokens} tokens at {context} of context", "miniwin-1m", sides)


@torch.no_grad()
def _decoder(model: Decoder, ids: torch.Tensor, context: int) -> Callable[[], object]:
    warm = model.new_cache()
    model(ids[:, :context], cache=warm, logits_to_keep=1)
    last = model(ids[:, context:], cache=warm.clone())[:, -1]

    @torch.no_grad()
    def run() -> torch.Tensor:
        cache = warm.clone()
        out = torch.empty(0)
        for t in range(context, ids.shape[1]):
            out = model(ids[:, t : t + 1], cache=cache)
        return out[:, -1]

    _agree(run(), last)
    return run


def _agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """The correctness gate: no figure without it."""
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
