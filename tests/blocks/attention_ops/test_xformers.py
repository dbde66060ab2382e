"""xformers' bias for every kind of mask, materialised and compared with ours, and the arguments of its kernels.

Its kernels need CUDA; the biases, the packing of rows and the conditions of its operators do not.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from attention_calls import BY_NAME, SHAPES, agree, make_call, real_rows
from pretended_gpu import on_cuda
from torch import Tensor

from miniwin.blocks.attention import cached
from miniwin.blocks.attention_ops import AttentionCall, attend, choose, sdpa, steps_by_sdpa, use_backend
from miniwin.blocks.attention_ops import xformers as xformers_backend
from miniwin.blocks.attention_ops.call import capability
from miniwin.blocks.attention_ops.mask import full_mask
from miniwin.blocks.documents import Documents
from miniwin.specs import UserError


@pytest.fixture
def fmha() -> ModuleType:
    if importlib.util.find_spec("xformers") is None:
        pytest.skip("xformers is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("xformers.ops.fmha", reason="xformers cannot be imported here", exc_type=ImportError)


def documents(*rows: tuple[int, ...]) -> Documents:
    """Rows of documents of these lengths."""
    numbers = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows]
    return Documents(torch.stack(numbers))


@pytest.mark.parametrize(
    ("n", "m", "window"),
    [
        (9, 9, None),
        (4, 9, None),
        (1, 9, None),
        (9, 9, 1),
        (9, 9, 4),
        (9, 9, 9),
        (9, 9, 20),
        (4, 9, 3),
        (4, 9, 9),
        (4, 9, 20),
        (1, 9, 3),
        (1, 9, 9),
    ],
)
def test_the_bias_is_our_mask(fmha: ModuleType, n: int, m: int, window: int | None) -> None:
    bias = xformers_backend.bias_class(n, m, window)
    theirs = torch.zeros(n, m) if bias is None else bias.materialize((n, m))
    assert torch.equal(theirs, full_mask(make_call(n, window, m=m))[0, 0])


# (n, window, what make_call is given, documents)
PACKED: dict[str, tuple[int, int | None, dict[str, Any], Documents | None]] = {
    "padding": (19, None, {"batch": 3, "pad": (0, 7, 18)}, None),
    "padding, a row without tokens": (19, None, {"batch": 3, "pad": (0, 19, 4)}, None),
    "padding in a window": (19, 5, {"batch": 3, "pad": (0, 7, 18)}, None),
    "padding in a window wider than rows": (19, 40, {"batch": 3, "pad": (0, 7, 18)}, None),
    "padding, chunk on a cache": (6, None, {"batch": 3, "m": 19, "pad": (0, 15, 4)}, None),
    "padding, chunk on a cache, window": (6, 4, {"batch": 3, "m": 19, "pad": (0, 15, 4)}, None),
    "padding, one token": (1, None, {"batch": 3, "m": 19, "pad": (0, 15, 4)}, None),
    "padding, one token in a window": (1, 19, {"batch": 3, "m": 19, "pad": (0, 15, 4)}, None),
    "padding, one token in a narrow window": (1, 7, {"batch": 2, "m": 19, "pad": (0, 15)}, None),
    "documents": (19, None, {"batch": 2}, documents((3, 1, 15), (18, 1))),
    "documents in a window": (19, 4, {"batch": 2}, documents((3, 1, 15), (19,))),
    "documents in a wide window": (19, 17, {"batch": 2}, documents((3, 1, 15), (10, 9))),
}


def packed(name: str, **more: Any) -> AttentionCall:
    n, window, given, parts = PACKED[name]
    return replace(make_call(n, window, **given, **more), documents=parts)


# Of a call: its dtype, and whether it is training. In float32 the kernels are only used in inference.
USES = [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float32, False)]


@pytest.mark.parametrize(("dtype", "training"), USES)
@pytest.mark.parametrize("name", PACKED)
def test_the_bias_of_packed_rows_is_our_mask(fmha: ModuleType, name: str, dtype: torch.dtype, training: bool) -> None:
    """All rows are packed into one: a token sees what it saw before, and nothing of other rows."""
    call = packed(name, dtype=dtype)
    batch, n, m = call.q.shape[0], call.q.shape[1], call.k.shape[1]
    ours = torch.full((batch, n, batch, m), float("-inf"))
    for row, mask in enumerate(full_mask(call)[:, 0].expand(batch, n, m)):
        ours[row, :, row] = mask
    ours = ours.view(batch * n, batch * m)
    pack = xformers_backend.packing(call, training)
    if pack.queries is not None:
        ours = ours[pack.queries]
    elif call.pad is not None:
        assert int(call.pad.max()) <= call.offset
    if pack.keys is not None:
        ours = ours[:, pack.keys]
    assert torch.equal(pack.bias.materialize(tuple(ours.shape)), ours)
    gaps = isinstance(pack.bias, fmha.attn_bias.BlockDiagonalCausalWithOffsetGappyKeysMask)
    wide = call.window is None or call.window >= m
    assert gaps == (not training and dtype == torch.bfloat16 and call.pad is not None and wide)


def as_xformers(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any = None, p: float = 0.0, scale: Any = None) -> Tensor:
    """What the documentation of memory_efficient_attention says it computes, for (B, M, H, K) and (B, M, G, H, K)."""
    bias = 0.0 if attn_bias is None else attn_bias.materialize((q.shape[1], k.shape[1]))
    assert k.shape[2:] == q.shape[2:] and v.shape[2:] == q.shape[2:] and p == 0.0
    scores = torch.einsum("bn...d,bm...d->b...nm", q, k) * scale + bias
    return torch.einsum("b...nm,bm...d->bn...d", scores.softmax(-1), v)


CALLS: dict[str, tuple[int, int | None, dict[str, Any], Documents | None]] = {
    "prefill": (19, None, {}, None),
    "prefill in a window": (19, 5, {}, None),
    "chunk on a cache": (6, None, {"m": 19}, None),
    "chunk on a cache in a window": (6, 5, {"m": 19}, None),
    "one token": (1, 5, {"m": 19}, None),
    **PACKED,
}


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize(("dtype", "training"), USES)
@pytest.mark.parametrize("name", CALLS)
def test_what_its_kernels_are_handed_is_the_reference(
    fmha: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: torch.dtype,
    training: bool,
    heads: tuple[int, int],
) -> None:
    """Layout, bias, scale and packing give our attention and its gradients; xformers' operators take them."""
    asked: list[Any] = []

    def record(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any = None, p: float = 0.0, scale: Any = None) -> Tensor:
        given = [t.detach().to(dtype) for t in (q, k, v)]
        asked.append(fmha.Inputs(*given, attn_bias=attn_bias, p=p, scale=scale))
        return as_xformers(q, k, v, attn_bias, p, scale)

    n, window, given, parts = CALLS[name]
    call = replace(make_call(n, window, heads=heads, **given), documents=parts)
    real = real_rows(call)
    monkeypatch.setattr(sys.modules["xformers.ops"], "memory_efficient_attention", record)
    if dtype == torch.bfloat16:  # as in bfloat16, and compared in float32
        monkeypatch.setattr(xformers_backend, "FLASH", (torch.float32,))
    with torch.set_grad_enabled(training):
        out = xformers_backend.run(call)
    assert out.shape == call.q.shape
    with use_backend("reference"):
        want = attend(call)
    assert float(((out - want) * real).detach().abs().max()) < 1e-5
    if training:
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)) * real
        leaves = (call.q, call.k, call.v)
        pairs = zip(torch.autograd.grad(out, leaves, weight), torch.autograd.grad(want, leaves, weight), strict=True)
        assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-5

    def takers(operators: list[Any]) -> list[str]:
        """Operators whose only complaints are about this machine."""
        here = ("device=cpu", "device type", "operator wasn't built", "bf16 is only supported", "deterministic")
        return [
            op.NAME
            for op in operators
            if all(any(word in reason for word in here) for reason in op.not_supported_reasons(asked[0]))
        ]

    assert takers([fmha.flash.FwOp, fmha.cutlass.FwOp]), "no forward operator takes this call"
    if training:
        assert takers([fmha.flash.BwOp, fmha.cutlass.BwOp]), "no backward operator takes this call"


def test_rows_without_a_token_are_answered(fmha: ModuleType) -> None:
    call = make_call(5, None, batch=2, pad=(5, 5))
    assert torch.equal(xformers_backend.run(call), torch.zeros_like(call.q))


def test_it_declines_what_it_would_get_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA: a score bias, a soft-cap, training in float32, odd head dims."""
    monkeypatch.setattr(xformers_backend, "missing", lambda: None)

    def reason(call: AttentionCall) -> str | None:
        return xformers_backend.declines(on_cuda(call))

    half = {"dtype": torch.bfloat16}
    for window in (4, None):
        assert reason(make_call(9, window, **half)) is None
        assert reason(make_call(9, window, pad=(2,), **half)) is None
        assert reason(replace(make_call(9, window, **half), documents=documents((4, 5)))) is None
    assert reason(make_call(9, 4, alibi=True, **half)) == "it takes no score bias"
    assert reason(replace(make_call(9, 4, **half), softcap=3.0)) == "it takes no score soft-cap"
    assert reason(replace(make_call(9, **half), chunk=3)) == "it takes no chunk"
    assert "float32" in str(reason(make_call(9, 4)))
    assert "head" in str(reason(make_call(9, 4, dim=12, **half)))  # a multiple of 8
    assert "at most 256" in str(reason(make_call(9, 4, dim=264, **half)))
    assert reason(make_call(9, 4, dim=256, **half)) is None


def test_it_is_for_devices_that_its_kernels_are_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xformers_backend, "missing", lambda: None)
    half, single = (on_cuda(make_call(9, 4, dtype=dtype)) for dtype in (torch.float16, torch.float32))

    def reasons(*gpu: int) -> tuple[str | None, str | None]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu)
        capability.cache_clear()
        with torch.no_grad():
            return xformers_backend.declines(half), xformers_backend.declines(single)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        assert reasons(8, 0) == reasons(9, 0) == (None, None)
        assert reasons(7, 5) == ("its kernels for torch.float16 need compute capability 8.0 or more, not 7.5", None)
        for newer in ((10, 0), (12, 0)):
            assert reasons(*newer)[0] is None
            assert "capability 9.0 or less, not " + ".".join(map(str, newer)) in str(reasons(*newer)[1])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as miniwin explain asks
        assert reasons(7, 5) == (None, None)
    finally:
        capability.cache_clear()


def test_those_are_the_devices_that_its_operators_name(fmha: ModuleType) -> None:
    assert fmha.flash.FwOp.CUDA_MINIMUM_COMPUTE_CAPABILITY == xformers_backend.FLASH_FROM
    assert fmha.flash.FwOp.CUDA_MAXIMUM_COMPUTE_CAPABILITY is None
    assert fmha.cutlass.FwOp.CUDA_MAXIMUM_COMPUTE_CAPABILITY == xformers_backend.CUTLASS_TO
    assert fmha.cutlass.FwOp.CUDA_MINIMUM_COMPUTE_CAPABILITY < xformers_backend.FLASH_FROM


def test_where_a_backward_must_be_deterministic_it_declines(fmha: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward of flash is not deterministic. Inference is not affected."""
    monkeypatch.setattr(xformers_backend, "missing", lambda: None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    call = on_cuda(make_call(9, 4, dtype=torch.bfloat16))
    assert "not deterministic" in str(xformers_backend.declines(call))
    with torch.no_grad():
        assert xformers_backend.declines(call) is None
    assert fmha.flash.FwOp.IS_DETERMINISTIC and not fmha.flash.BwOp.IS_DETERMINISTIC


def test_no_cache_is_packed_for_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 padding would have to be packed away, which copies the cache."""
    monkeypatch.setattr(xformers_backend, "missing", lambda: None)
    for dtype, backend in ((torch.bfloat16, xformers_backend), (torch.float32, sdpa)):
        with torch.no_grad():
            call = make_call(1, m=9, batch=2, pad=(2, 0), dtype=dtype)
            stub = on_cuda(replace(call, **{name: getattr(call, name).detach() for name in "qkv"}))
            assert choose(stub) is backend
            assert choose(replace(stub, pad=None)) is xformers_backend


def test_a_cache_narrower_than_the_queries_is_not_widened_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that reads the cache as it is answers one token. Forced by name, xformers answers all the same."""
    monkeypatch.setattr(xformers_backend, "missing", lambda: None)
    with torch.no_grad():
        for dtype, stored in (
            (torch.float32, torch.bfloat16),
            (torch.float32, torch.int8),
            (torch.bfloat16, torch.int8),
        ):
            call = make_call(1, m=9, dtype=dtype)
            held = {name: getattr(call, name).detach().to(stored) for name in "kv"}
            narrow = on_cuda(replace(call, q=call.q.detach(), **held))
            assert steps_by_sdpa(narrow)
            assert choose(on_cuda(call)) is xformers_backend and not steps_by_sdpa(on_cuda(call))
            with use_backend("xformers"):
                assert not steps_by_sdpa(narrow)
    many = replace(call, k=torch.zeros(2, 1 << 17, 2, 32, dtype=torch.int8))
    assert cached._at_a_time(many) == 1 << 10
    assert cached._at_a_time(on_cuda(many)) == 1 << 17  # the whole cache at once


class Operator:
    def __init__(self, name: str, there: bool = True) -> None:
        self.NAME, self.there = name, there

    def is_available(self) -> bool:
        return self.there


def library(monkeypatch: pytest.MonkeyPatch, loaded: bool = True, flash: bool = True) -> None:
    """Put a stand-in in place of xformers: its library loaded or not, its flash kernel there or not."""
    package, lib, ops = (ModuleType(name) for name in ("xformers", "xformers._cpp_lib", "xformers.ops"))
    lib._built_with_cuda = loaded  # type: ignore[attr-defined]
    operators = {"flash": Operator("fa2F", flash), "cutlass": Operator("cutlassF-pt")}
    ops.fmha = SimpleNamespace(**{k: SimpleNamespace(FwOp=op) for k, op in operators.items()})  # type: ignore[attr-defined]
    package._cpp_lib, package.ops = lib, ops  # type: ignore[attr-defined]
    for module in (package, lib, ops):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_what_is_installed_and_cannot_be_called_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library may fail to load, which it only writes to its log; or its import may raise."""
    call = on_cuda(make_call(9, 4, dtype=torch.bfloat16))

    def reason() -> str | None:
        xformers_backend.missing.cache_clear()
        return xformers_backend.declines(call)

    try:
        library(monkeypatch)
        assert reason() is None
        library(monkeypatch, loaded=False)
        assert "does not load" in str(reason())
        assert choose(call) is not xformers_backend
        with use_backend("xformers"), pytest.raises(UserError, match="does not load"):
            choose(call)
        library(monkeypatch, flash=False)
        assert reason() == "xformers is built without its kernels fa2F"
        monkeypatch.setitem(sys.modules, "xformers.ops", None)
        assert "cannot be imported (ModuleNotFoundError: " in str(reason())
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert reason() == "xformers is not installed"
    finally:
        xformers_backend.missing.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", [None, "xformers", "flex", "sdpa", "tiled"])
def test_backends_equal_the_reference_on_cuda(backend: str | None) -> None:
    answered = 0
    for n, window, more in SHAPES:
        call = make_call(n, window, dtype=torch.bfloat16, device="cuda", **more)
        if backend is None or BY_NAME[backend].declines(call) is None:
            agree(call, backend)
            answered += 1
    assert answered >= 20
