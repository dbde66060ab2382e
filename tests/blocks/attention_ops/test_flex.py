"""The FlexAttention backend, uncompiled on the CPU: its mask, its change of scores, and what it declines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from attention_calls import LearnedBias, make_call
from pretended_gpu import on_cuda
from torch import Tensor
from torch._dynamo import config as dynamo_config
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as flex_module

from miniwin.blocks.attention_ops import AttentionCall, Kept, attend, choose, flex, use_backend
from miniwin.blocks.attention_ops.mask import full_mask
from miniwin.blocks.documents import Documents
from miniwin.specs import UserError


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """flex_attention uncompiled, as plain operations, and without torch's refusal of gradients on a CPU."""
    monkeypatch.setattr(flex_module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_compiled", lambda *kind: flex_module.flex_attention)
    yield


def documents(*lengths: int) -> Documents:
    return Documents(torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).unsqueeze(0))


def kept(n: int, batch: int = 1, heads: int = 2, dim: int = 16, size: int = 3) -> Kept:
    generator = torch.Generator().manual_seed(5)
    k, v = (torch.randn(batch, size, heads, dim, generator=generator) for _ in range(2))
    return Kept(k, v, torch.rand(batch, n, size, generator=generator) < 0.6)


# (tokens, what make_call is given, what is set on top)
CALLS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "causal": (150, {}, {}),
    "one token": (1, {}, {}),
    "warm": (70, {"m": 333}, {}),
    "window": (401, {"window": 33}, {}),
    "wide window": (401, {"window": 290}, {}),
    "window of one": (140, {"window": 1}, {}),
    "warm window": (131, {"m": 300, "window": 64}, {}),
    "whole blocks": (512, {"window": 300}, {}),
    "padding": (140, {"batch": 3, "pad": (0, 17, 139)}, {}),
    "window and padding": (40, {"m": 171, "batch": 2, "pad": (0, 160), "window": 20}, {}),
    "chunk": (300, {}, {"chunk": 48}),
    "chunk and padding": (
        140,
        {"batch": 2, "pad": (0, 9)},
        {"chunk": 32, "start": torch.tensor([0, -9])},
    ),
    "documents": (200, {}, {"documents": documents(3, 150, 1, 46)}),
    "documents in a window": (200, {"window": 20}, {"documents": documents(3, 150, 1, 46)}),
    "documents in chunks": (200, {}, {"documents": documents(3, 150, 1, 46), "chunk": 16}),
    "heads": (70, {"heads": (6, 1), "window": 9}, {}),
    "alibi": (140, {"alibi": True}, {}),
    "alibi in a warm window": (40, {"alibi": True, "m": 181, "window": 60}, {}),
    "soft-cap": (140, {}, {"softcap": 0.7}),
    "sinks": (140, {"window": 30}, {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])}),
    "kept": (140, {"window": 30}, {"kept": kept(140)}),
    "kept, padding": (129, {"window": 30, "batch": 2, "pad": (0, 50)}, {"kept": kept(129, 2)}),
    "kept, sinks, soft-cap and bias": (
        90,
        {"window": 30, "m": 128, "alibi": True},
        {"kept": kept(90), "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0]), "softcap": 2.0},
    ),
}


def made(name: str) -> AttentionCall:
    n, given, more = CALLS[name]
    return replace(make_call(n, **given), **more)


@pytest.mark.parametrize("name", CALLS)
def test_the_mask_is_ours(name: str) -> None:
    """Every pair that mask_mod lets through, block by block, against the dense mask of the reference."""
    call = made(name)
    batch, n, m, behind = call.q.shape[0], call.q.shape[1], call.k.shape[1], flex.further(call)
    want = (full_mask(call) > float("-inf"))[:, :1].expand(batch, 1, n, m)
    if call.kept is not None:
        want = torch.cat((want, call.kept.seen.unsqueeze(1).expand(batch, 1, n, -1)), -1)
    if call.sinks is not None:
        want = torch.cat((want, torch.ones(batch, 1, n, 1, dtype=torch.bool)), -1)
    seen = flex_module.create_mask(flex.mask_mod(call), batch, 1, n, m + behind, device="cpu")
    assert torch.equal(seen, want)

    mask = flex.block_mask(call)
    size = flex.BLOCK
    looked_into = torch.zeros(-(-n // size), -(-(m + behind) // size), dtype=torch.bool)
    entire = looked_into.clone()
    for numbers, indices, into in (
        (mask.kv_num_blocks, mask.kv_indices, looked_into),
        (mask.full_kv_num_blocks, mask.full_kv_indices, entire),
    ):
        for row in range(len(into)):
            into[row, indices[0, 0, row, : numbers[0, 0, row]].long()] = True
    assert not (looked_into & entire).any()
    for row in range(len(entire)):
        for column in range(entire.shape[1]):
            block = want[..., row * size : (row + 1) * size, column * size : (column + 1) * size]
            if entire[row, column]:
                assert block.all() and block.shape[-2:] == (size, size)
            elif not looked_into[row, column]:
                assert not block.any()


def test_blocks_out_of_reach_are_skipped() -> None:
    call = replace(make_call(1024, 64), q=torch.zeros(1, 1024, 4, 16))
    mask = flex.block_mask(call)
    assert int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) == 2 * 8 - 1
    assert int(flex.block_mask(made("whole blocks")).full_kv_num_blocks.sum()) > 0
    million = replace(call, q=torch.zeros(1, 1 << 16, 1, 1), k=torch.zeros(1, 1 << 16, 1, 1), v=torch.zeros(1))
    assert flex.block_mask(replace(million, v=million.k)).kv_indices.numel() == (1 << 9) ** 2


@pytest.mark.parametrize("name", CALLS)
def test_outputs_equal_the_reference(name: str, eager: None) -> None:
    call = made(name)
    with torch.no_grad():
        with use_backend("flex"):
            got = attend(call)
        with use_backend("reference"):
            want = attend(call)
    real = torch.ones(*got.shape[:2], 1, 1)
    if call.pad is not None:
        real = (torch.arange(got.shape[1]) + call.offset >= call.pad.unsqueeze(1)).float()[..., None, None]
    assert float(((got - want) * real).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("name", ["window", "soft-cap", "kept, sinks, soft-cap and bias"])
def test_gradients_equal_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses gradients on a CPU. Its uncompiled operations have them, and they must be right."""
    monkeypatch.setattr(flex_module, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(
        flex, "_compiled", lambda *kind: flex_module.flex_attention
    )  # traced, so that captures get gradients
    call = made(name)
    bias = torch.rand(4, 1, 1)
    given = {"q": call.q, "k": call.k, "v": call.v} | ({} if call.sinks is None else {"sinks": call.sinks})

    def gradients(run: Any) -> list[Tensor]:
        leaves = {key: t.detach().clone().requires_grad_() for key, t in given.items()}
        weight = bias.clone().requires_grad_()
        learned = None if call.bias is None else LearnedBias(weight)
        out = run(replace(call, bias=learned, **leaves))
        wanted = [*leaves.values(), *([] if learned is None else [weight])]
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        return list(torch.autograd.grad(out, wanted, upstream))

    def reference(call: AttentionCall) -> Tensor:
        with use_backend("reference"):
            return attend(call)

    for got, want in zip(gradients(flex.run), gradients(reference), strict=True):
        assert float((got - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


def test_what_it_declines() -> None:
    call = make_call(20, 5)
    assert flex.declines(call) == "it has no backward on a CPU"
    with torch.no_grad():
        assert flex.declines(call) is None
        assert flex.declines(replace(call, log_gates=torch.zeros(1, 20, 4))) == "it takes no forget gates"
        assert flex.declines(replace(call, window=None, weighting="stick-breaking")) == (
            "it takes no weighting other than softmax"
        )
    meta = replace(call, **{name: getattr(call, name).to("meta") for name in "qkv"})
    assert flex.declines(meta) == "it is compiled for CUDA or a CPU, not for meta"
    with use_backend("flex"), pytest.raises(UserError, match=r"'flex' cannot answer .*: it has no backward on a CPU"):
        attend(call)


def test_heads_too_narrow_for_triton_are_declined_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA compiling it would raise; another backend answers."""
    monkeypatch.setattr(flex, "_has_triton", lambda: True)

    def answered(keys: int, values: int) -> tuple[str | None, bool]:
        call = replace(make_call(20, dim=keys), v=make_call(20, dim=values).v, softcap=2.0)
        return flex.declines(on_cuda(call)), choose(on_cuda(call)) is flex

    assert answered(16, 16) == answered(16, 24) == (None, True)
    for keys, values in ((8, 8), (8, 16), (24, 8)):
        assert answered(keys, values) == ("its kernels take head dims from 16 on, not 8", False)
    with torch.no_grad():
        assert flex.declines(make_call(20, dim=8)) is None, "on a CPU they are as good as any"


def test_other_lengths_do_not_compile_it_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is compiled for CUDA, up to what a device is needed for. At torch's limit, which each kind has for itself,
    it would run unfused; here that is an error, and the limit half of what it is."""
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    monkeypatch.setitem(flex.DYNAMIC, "cpu", flex.DYNAMIC["cuda"])
    names, lengths = ("soft-cap", "kept, sinks, soft-cap and bias"), range(256, 256 + 7 * 37, 37)

    def compiled(name: str, n: int, m: int, batch: int) -> int:
        _, given, more = CALLS[name]
        first = {"kept": kept(n, batch)} if "kept" in more else {}
        call = replace(make_call(n, **{**given, "m": m, "batch": batch}), **{**more, **first})
        with torch.no_grad():
            with use_backend("flex"), dynamo_config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
                got = attend(call)
            with use_backend("reference"):
                assert torch.allclose(got, attend(call), atol=1e-4)
        return int(counter.frame_count)

    torch._dynamo.reset()
    flex._compiled.cache_clear()
    try:
        for number, name in enumerate(names):
            counts = [compiled(name, n, 2 * n - 7 * i, 2 + i // 5) for i, n in enumerate(lengths)]
            assert counts[-1] <= 3 * (number + 1), "for one length, then for any, then for any number of rows"
            assert counts[-1] == counts[5]
        assert counts[-1] > 4, "more than one function may be compiled for"
        for n, m, batch in ((77, 77, 1), (128, 384, 1), (300, 300, 2), (300, 301, 1)):  # other kinds
            compiled("soft-cap", n, m, batch)
        assert flex._compiled.cache_info().currsize == len(names) + 4
    finally:
        flex._compiled.cache_clear()
        torch._dynamo.reset()


def test_calls_of_a_kind_differ_in_lengths_alone() -> None:
    call = make_call(20, 5)
    assert flex.kind(call) == flex.kind(make_call(30, 5))
    chunk = flex.kind(make_call(300, 5, m=500, batch=2))
    assert chunk == flex.kind(make_call(301, 5, m=303, batch=3)) != flex.kind(make_call(300, 5, m=500))
    for other in (
        make_call(20, 6),
        make_call(20, 5, dim=24),
        make_call(20, 5, heads=(4, 1)),
        make_call(20, 5, dtype=torch.bfloat16),
        replace(call, softcap=1.0),
        replace(call, scale=2.0),
        replace(call, window=None, chunk=8),
    ):
        assert flex.kind(other) != flex.kind(call)
    with torch.no_grad():
        assert flex.kind(call) != flex.kind(replace(call, softcap=1.0))
        without = flex.kind(call)
    assert without != flex.kind(call)


def test_a_cpu_never_compiles_it_unasked() -> None:
    with torch.no_grad():
        for name in CALLS:
            assert choose(made(name)) is not flex
        with use_backend("flex"):
            assert choose(made("window")) is flex
