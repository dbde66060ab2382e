"""Calls of attention of every shape, what a backend answers to them, and the naive answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from miniwin.blocks import native
from miniwin.blocks.attention_ops import BACKENDS, AttentionCall, attend, choose, use_backend
from miniwin.blocks.positions import Alibi

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float64: 1e-13}  # of the largest element


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.set_deterministic_debug_mode("default")
    torch.utils.deterministic.fill_uninitialized_memory = filled


def make_call(
    n: int,
    window: int | None = None,
    *,
    m: int | None = None,
    heads: tuple[int, int] = (4, 2),
    dim: int = 16,
    batch: int = 1,
    alibi: bool = False,
    pad: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> AttentionCall:
    """A random call, whose q, k, v ask for gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens: int, count: int) -> Tensor:
        values = torch.randn(batch, tokens, count, dim, generator=generator)
        return values.to(device=device, dtype=dtype).requires_grad_()

    m = n if m is None else m
    return AttentionCall(
        draw(n, heads[0]),
        draw(m, heads[1]),
        draw(m, heads[1]),
        scale=1.5 * dim**-0.5,
        window=window,
        bias=Alibi(heads[0]).score_bias() if alibi else None,
        pad=None if pad is None else torch.tensor(pad, device=device),
    )


def real_rows(call: AttentionCall) -> Tensor:
    """(B, N, 1, 1): one for a token, zero for padding."""
    n, offset = call.q.shape[1], call.offset
    pad = torch.zeros(len(call.q), dtype=torch.int64) if call.pad is None else call.pad.cpu()
    return (torch.arange(n) + offset >= pad.unsqueeze(1)).float()[..., None, None].to(call.q.device)


class LearnedBias:
    """A score bias with a weight (H, 1, 1) to learn."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, distance: Tensor) -> Tensor:
        return self.weight * torch.sin(distance.float())


def tensors(call: AttentionCall) -> dict[str, Tensor]:
    """Every tensor of a call that has to get a gradient."""
    found = {name: getattr(call, name) for name in ("q", "k", "v", "sinks", "log_gates")}
    if call.kept is not None:
        found |= {"kept.k": call.kept.k, "kept.v": call.kept.v}
    if isinstance(call.bias, LearnedBias):
        found["bias"] = call.bias.weight
    return {name: t for name, t in found.items() if t is not None}


def with_tensors(call: AttentionCall, new: dict[str, Tensor]) -> AttentionCall:
    """The same call with other tensors, by the names of `tensors`."""
    fields: dict[str, Any] = {name: t for name, t in new.items() if name != "bias" and "." not in name}
    if call.kept is not None:
        fields["kept"] = replace(call.kept, k=new["kept.k"], v=new["kept.v"])
    if "bias" in new:
        fields["bias"] = LearnedBias(new["bias"])
    return replace(call, **fields)


def answer(call: AttentionCall, backend: str | None) -> dict[str, Tensor]:
    """Output (padding rows zeroed), and the gradients of all tensors for a random loss over the real rows."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in tensors(call).items()}
    with use_backend(backend):
        out = attend(with_tensors(call, leaves))
    assert out.dtype == call.q.dtype and out.shape == (*call.q.shape[:3], call.v.shape[3])
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out) * real_rows(call)
    grads = torch.autograd.grad(out, list(leaves.values()), weight.to(out.dtype), allow_unused=True)
    out = torch.where(real_rows(call) > 0, out.detach(), 0)
    zipped = zip(leaves.items(), grads, strict=True)
    return {"out": out} | {f"d {name}": torch.zeros_like(t) if g is None else g for (name, t), g in zipped}


def in_float32(call: AttentionCall) -> AttentionCall:
    """The same numbers in float32 or wider. The reference gets these, so that only the backend rounds."""
    return with_tensors(call, {name: t.detach().to(call.wide) for name, t in tensors(call).items()})


def agree(call: AttentionCall, *backends: str | None) -> None:
    """Each backend gives the reference's output and gradients. A backend of None is the dispatch."""
    tolerance = TOLERANCE[call.q.dtype]
    expected = answer(in_float32(call), "reference")
    for backend in backends:
        for name, got in answer(call, backend).items():
            want = expected[name]
            assert not got.isnan().any(), f"{backend}: {name} holds NaN"
            error = float((got.to(want.dtype) - want).abs().max())
            # A gradient of exactly zero (a single visible key) may be off by the rounding of inputs of order one.
            assert error <= tolerance * (float(want.abs().max()) or 1.0), f"{backend}: {name}: {error:.1e}"


# (n, window, more): odd lengths, windows of one, beyond a tile (32), beyond two, beyond the sequence; warm caches.
SHAPES: list[tuple[int, int | None, dict[str, Any]]] = [
    (1, None, {}),
    (1, 1, {}),
    (1, 7, {}),
    (1, 7, {"m": 7}),
    (1, 7, {"m": 40}),
    (1, None, {"m": 40}),
    (2, 1, {}),
    (37, None, {}),
    (37, 1, {}),
    (37, 7, {}),
    (37, 37, {}),
    (37, 64, {}),
    (64, 33, {}),
    (129, 7, {}),
    (131, 32, {}),
    (131, 33, {}),
    (133, 130, {}),
    (161, 129, {}),
    (5, None, {"m": 30}),
    (5, 7, {"m": 11}),
    (5, 7, {"m": 90}),
    (70, 7, {"m": 76}),
    (70, 33, {"m": 102}),
    (97, 9, {"m": 131}),
    (131, 17, {"heads": (4, 4)}),
    (131, 17, {"heads": (8, 1), "dim": 8}),
    (99, 17, {"heads": (6, 2), "dim": 24}),
    (99, 17, {"heads": (5, 1), "dim": 32}),
    (99, 17, {"heads": (3, 3), "dim": 128}),
    (99, None, {"heads": (8, 2), "dim": 64}),
    (75, None, {"batch": 3, "heads": (8, 1), "dim": 32}),
    (99, 17, {"alibi": True}),
    (99, None, {"alibi": True, "heads": (6, 3)}),
    (40, 17, {"alibi": True, "m": 56}),
    (99, 17, {"batch": 3}),
    (99, 17, {"batch": 4, "pad": (0, 3, 50, 98)}),
    (99, None, {"batch": 4, "pad": (0, 3, 50, 98)}),
    (20, 17, {"batch": 3, "m": 36, "pad": (0, 10, 36 - 5)}),
    (1, 17, {"batch": 3, "m": 17, "pad": (0, 10, 16)}),
    (20, None, {"batch": 3, "m": 50, "pad": (0, 29, 40)}),
    (2, None, {"m": 3}),
    (64, None, {"m": 97, "heads": (6, 2)}),
    (33, None, {"m": 100, "heads": (8, 1), "dim": 64, "batch": 2}),
    (70, 9, {"batch": 2, "pad": (1, 40), "alibi": True, "heads": (4, 1)}),
]


IDS = [f"n{n}-w{w}" + "".join(f"-{k}{v}".replace(" ", "") for k, v in more.items()) for n, w, more in SHAPES]


BY_NAME = {str(backend.NAME): backend for backend in BACKENDS}


ELSEWHERE = ("xformers", "flex", "by_document", "reference")  # tested elsewhere, or the yardstick itself


ABSENT = ("cpu_native",) if native.missing() is not None else ()  # no kernels here, or MINIWIN_NATIVE=0


ON_CPU = [name for name in BY_NAME if name not in (*ELSEWHERE, *ABSENT)]


def naive(call: AttentionCall) -> Tensor:
    """One score at a time, in float64: a second opinion, for the reference itself."""
    call = with_tensors(call, {name: t.detach().double() for name, t in tensors(call).items()})
    batch, n, heads, dim = call.q.shape
    per_key = heads // call.k.shape[2]
    out = torch.zeros(batch, n, heads, call.v.shape[-1], dtype=torch.float64)

    def logit(q: Tensor, k: Tensor, b: int, h: int, at: int, j: int | None) -> float:
        """q (H, D), k (Hkv, D). j None: a kept token, which has no distance."""
        if call.score is not None and j is not None:
            found = float(call.score(q.view(1, 1, heads, dim), k[None, None], torch.tensor([[at - j]]))[0, h, 0, 0])
        else:
            found = sum(float(q[h, c] * k[h // per_key, c]) for c in range(dim))
        found *= call.scale
        if call.softcap is not None:
            found = call.softcap * math.tanh(found / call.softcap)
        if call.bias is not None and j is not None:
            found += float(call.bias(torch.tensor([[at - j]])).expand(heads, 1, 1)[h, 0, 0])
        if call.log_gates is not None and j is not None:
            found += sum(float(call.log_gates[b, t, h]) for t in range(j + 1, at + 1))
        return found

    for b in range(batch):
        pad = 0 if call.pad is None else int(call.pad[b])
        start = 0 if call.start is None else int(call.start.expand(batch)[b])
        for i in range(n):
            at = call.offset + i
            first = 0 if call.window is None else max(0, at - call.window + 1)
            seen = [j for j in range(first, at + 1) if j >= pad or j == at]
            if call.chunk is not None:
                seen = [j for j in seen if (start + j) // call.chunk == (start + at) // call.chunk]
            for h in range(heads):
                q, kv = call.q[b, i], h // per_key
                found = [(logit(q, call.k[b, j], b, h, at, j), call.v[b, j, kv]) for j in seen]
                if call.weighting == "stick-breaking":
                    left = 1.0
                    for s, value in reversed(found[:-1]):  # the nearest first, and not the query's own
                        share = 1 / (1 + math.exp(-s))
                        out[b, i, h] += left * share * value
                        left *= 1 - share
                    continue
                if call.kept is not None:
                    visible = call.kept.seen.expand(batch, -1, -1)[b, i].nonzero().flatten().tolist()
                    further = ((call.kept.k[b, s], call.kept.v[b, s, kv]) for s in visible)
                    found += [(logit(q, k, b, h, at, None), value) for k, value in further]
                if call.sinks is not None:
                    found.append((float(call.sinks[h]), torch.zeros_like(out[b, i, h])))
                total = sum(math.exp(s) for s, _ in found)
                for s, value in found:
                    out[b, i, h] += math.exp(s) / total * value
    return out


class Sizes(TorchDispatchMode):
    """Records every tensor that an operation returns: the most elements in one, and the bytes of all storages."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.storages: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.numel():
                self.largest = max(self.largest, t.untyped_storage().nbytes() // t.element_size())
                self.storages[t.untyped_storage().data_ptr()] = t  # keeps it alive: nothing is counted twice
        return out

    @property
    def bytes(self) -> int:
        return sum(t.untyped_storage().nbytes() for t in self.storages.values())


def chosen(call: AttentionCall) -> str:
    return str(choose(call).NAME)
