"""Attention backends: each against the naive reference, outputs and gradients; and the dispatch between them.

Uninitialised memory is filled with NaN throughout, so a result that no code wrote shows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_calls import (
    BY_NAME,
    IDS,
    ON_CPU,
    SHAPES,
    TOLERANCE,
    Sizes,
    agree,
    chosen,
    in_float32,
    make_call,
    naive,
    poisoned_memory,  # noqa: F401  (a fixture)
    real_rows,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from miniwin.blocks import native
from miniwin.blocks.attention import cached
from miniwin.blocks.attention_ops import (
    AttentionCall,
    attend,
    choose,
    cpu_banded,
    sdpa,
    steps_by_sdpa,
    use_backend,
)
from miniwin.specs import UserError

FOR_CHUNKS = ("block_local",)  # has its cases in test_attention_ops_features.py


def able(call: AttentionCall) -> list[str]:
    return [name for name in ON_CPU if BY_NAME[name].declines(call) is None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("n", "window", "more"), SHAPES, ids=IDS)
def test_backends_equal_the_reference(n: int, window: int | None, more: dict[str, Any], dtype: torch.dtype) -> None:
    """The dispatch, and every backend that takes the call, in training and in inference."""
    call = make_call(n, window, dtype=dtype, **more)
    agree(call, None, *able(call))
    with torch.no_grad():  # what runs may be another backend, or the same on another path
        with use_backend("reference"):
            want = torch.where(real_rows(call) > 0, attend(in_float32(call)), 0)
        for backend in (None, *able(call)):
            with use_backend(backend):
                got = torch.where(real_rows(call) > 0, attend(call).float(), 0)
            assert float((got - want).abs().max()) <= TOLERANCE[dtype] * float(want.abs().max()), backend


@torch.no_grad()
def test_every_backend_for_this_machine_has_cases() -> None:
    answered = [name for n, window, more in SHAPES for name in able(make_call(n, window, **more))]
    count = {name: answered.count(name) for name in ON_CPU if name not in FOR_CHUNKS}
    assert min(count.values()) >= 4, count


@pytest.mark.parametrize("seed", range(25))
def test_random_shapes_equal_the_reference(seed: int) -> None:
    """Lengths, windows and padding are drawn at random, to find boundaries that the cases above miss."""
    generator = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    n, past, window, batch = pick(1, 140), pick(0, 70), pick(1, 150), pick(1, 3)
    kv_heads, dim = pick(1, 3), 8 * pick(1, 4)
    call = make_call(
        n,
        window,
        m=n + past,
        heads=(kv_heads * pick(1, 4), kv_heads),
        dim=dim,
        batch=batch,
        alibi=pick(0, 1) == 1,
        pad=tuple(pick(0, n + past - 1) for _ in range(batch)) if pick(0, 1) else None,
        seed=seed,
    )
    agree(call, "cpu_banded", "sdpa", "tiled")


@pytest.mark.parametrize(
    ("n", "window", "more"),
    [
        (9, None, {}),
        (9, 3, {"heads": (3, 1)}),
        (4, 3, {"m": 8, "heads": (4, 2)}),
        (6, None, {"m": 8, "alibi": True, "heads": (2, 2)}),
        (6, 4, {"batch": 2, "pad": (0, 4), "heads": (2, 1)}),
    ],
)
def test_the_reference_equals_a_loop_over_scores(n: int, window: int | None, more: dict[str, Any]) -> None:
    call = make_call(n, window, dim=4, **more)
    with use_backend("reference"), torch.no_grad():
        assert float((attend(call).double() - naive(call)).abs().max()) < 1e-6


@pytest.mark.parametrize("backend", ["cpu_banded", "sdpa", "tiled", "reference"])
def test_gradients_of_padding_are_finite_and_reach_no_token(backend: str) -> None:
    """Gradients of the outputs of padding, however large, give no NaN and do not change the gradients of tokens."""
    call = make_call(70, 9, batch=2, pad=(0, 33))
    kept: list[list[Tensor]] = []
    for noise in (0.0, 5.0):
        leaves = [t.detach().clone().requires_grad_() for t in (call.q, call.k, call.v)]
        with use_backend(backend):
            out = attend(replace(call, q=leaves[0], k=leaves[1], v=leaves[2]))
        assert out.isfinite().all()
        real = real_rows(call)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)) * torch.where(real > 0, 1.0, noise)
        grads = torch.autograd.grad(out, leaves, weight)
        assert all(g.isfinite().all() for g in grads)
        kept.append([g * real for g in grads])
    for first, second in zip(*kept, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("which", ["q", "k", "v", "all", "keys expanded", "grad"])
def test_memory_layout_does_not_matter(backend: str, which: str) -> None:
    """Views of any stride: transposed storage, a broadcast, gradients that arrive transposed or as one number."""
    options: list[tuple[int | None, int]] = [(9, 75), (None, 75), (None, 90)]
    with torch.no_grad():
        calls = [make_call(75, window, m=m, heads=(4, 4)) for window, m in options]
        calls.append(replace(calls[-1], chunk=16))
        call = next(call for call in calls if BY_NAME[backend].declines(call) is None)

    def turned(t: Tensor) -> Tensor:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)

    if which == "keys expanded":
        k, v = (t[:, :, :1].expand(-1, -1, 4, -1) for t in (call.k, call.v))
        view, plain = replace(call, k=k, v=v), replace(call, k=k.contiguous(), v=v.contiguous())
    else:
        names = {"all": ("q", "k", "v"), "grad": ()}.get(which, (which,))
        view, plain = replace(call, **{name: turned(getattr(call, name)) for name in names}), call
    trains = BY_NAME[backend].declines(view) is None
    with torch.set_grad_enabled(trains):
        with use_backend(backend):
            got = attend(view)
        with use_backend("reference"):
            want = attend(plain)
    assert float((got - want).detach().abs().max()) < 1e-5
    if not trains:
        return
    weight = torch.randn(call.q.shape, generator=torch.Generator().manual_seed(9))
    for g in (turned(weight), torch.ones(()).expand_as(weight)) if which == "grad" else (weight,):
        pairs = [torch.autograd.grad(out, (call.q, call.k, call.v), g, retain_graph=True) for out in (got, want)]
        for a, b in zip(*pairs, strict=True):
            assert float((a - b).abs().max()) < 2e-5


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("window", [24, 130])
def test_local_attention_is_linear_in_length(window: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of 1024, 2048 and 4096 tokens: memory grows by equal steps, and nothing is N by N."""
    totals = {}
    without_kernels(monkeypatch)
    monkeypatch.setattr(cpu_banded._Masks, "known", {})  # a full cache would be emptied on the way
    attend(make_call(1024, window, heads=(2, 1), batch=batch)).sum().backward()  # masks are made once and kept
    for n in (1024, 2048, 4096):
        call = make_call(n, window, heads=(2, 1), batch=batch)
        with Sizes() as sizes:
            attend(call).sum().backward()
        assert sizes.largest <= 4 * call.q.numel(), f"{sizes.largest} elements in one tensor"
        assert sizes.largest < n * n // 4
        totals[n] = sizes.bytes
    assert totals[4096] - totals[2048] == pytest.approx(2 * (totals[2048] - totals[1024]), rel=0.01)
    with use_backend("sdpa"), Sizes() as sizes:  # the counter does see a mask where there is one
        attend(make_call(1024, window, heads=(2, 1)))
    assert sizes.largest >= 1024 * 1024


@pytest.mark.parametrize(("n", "m"), [(512, 512), (64, 4096), (1, 4096)])
def test_global_inference_makes_no_mask(n: int, m: int) -> None:
    """A prefill, a chunk on a warm cache, and a token: nothing of N by M."""
    call = make_call(n, None, m=m, heads=(2, 1))
    with torch.no_grad(), Sizes() as sizes:
        attend(call)
    assert sizes.largest <= max(call.q.numel(), call.k.numel())


@pytest.mark.parametrize("more", [{}, {"pad": (0, 70)}, {"alibi": True}])
def test_long_rows_are_cut_into_several_calls(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts have two or three tiles, so a short row has a head, a body of several parts and a tail."""
    monkeypatch.setattr(cpu_banded, "HEAD", 32)
    for most, window in ((2, 40), (3, 97), (3, 130)):
        monkeypatch.setattr(cpu_banded, "NUMBERS", most * 64 * 4 * 16)
        agree(make_call(451, window, batch=2, **more), "cpu_banded")
        agree(make_call(300, window, m=371, batch=2, **more), "cpu_banded")


def test_masks_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, equal call builds no mask; another window, dtype or bias has a mask of its own."""
    monkeypatch.setattr(cpu_banded._Masks, "known", {})  # when that is full, all are forgotten
    call = make_call(300, 33)

    def built(call: AttentionCall) -> int:
        with torch.no_grad(), Calls() as calls, use_backend("cpu_banded"):
            attend(call)
        return calls.names.count("aten.masked_fill.Scalar")

    built(call)
    assert built(call) == 0
    assert built(replace(call, window=35)) > 0
    assert built(make_call(300, 33, alibi=True)) > 0


class Calls(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "missing", lambda: "they are not here")


def test_dispatch_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for own, local in ((True, "cpu_native"), (False, "cpu_banded")):
        if not own:
            without_kernels(monkeypatch)
        elif native.missing():
            continue
        assert chosen(make_call(9, 4)) == local
        assert chosen(make_call(9, 4, pad=(3,))) == local
        assert chosen(make_call(9, 4, m=20)) == local
        assert chosen(make_call(9, 4, dim=24)) == "cpu_banded"
        assert chosen(make_call(9, 4, alibi=True, pad=(3,))) == "cpu_banded"
        assert chosen(make_call(9, 4, dtype=torch.float64)) == "cpu_banded"
        glob = local if own else "sdpa"
        assert chosen(make_call(9, None)) == glob
        assert chosen(make_call(1, 4, m=4)) == glob
        assert chosen(make_call(9, None, m=20)) == glob  # it is asked for gradients
        assert chosen(make_call(9, None, alibi=True, dtype=torch.bfloat16)) == "tiled"  # a mask would round it
        with torch.no_grad():
            assert chosen(make_call(9, None, m=20)) == (local if own else "cpu_chunked")
            assert chosen(make_call(99, None, dtype=torch.bfloat16)) == "sdpa"
            assert chosen(make_call(9, None, m=20, alibi=True)) == "sdpa"
            assert chosen(make_call(9, None, m=20, pad=(2,))) == glob
            assert chosen(make_call(1, None, m=20)) == glob
        # Without our kernels, it has a backward in float32.
        assert chosen(make_call(9, None, dtype=torch.bfloat16)) == (local if own else "cpu_causal")
        assert chosen(make_call(9, None, dtype=torch.bfloat16, dim=64)) == glob
        with use_backend("reference"):
            assert chosen(make_call(9, 4)) == "reference"
            with use_backend(None):
                assert chosen(make_call(9, 4)) == local
            assert chosen(make_call(9, 4)) == "reference"
        assert chosen(make_call(9, 4)) == local
    assert list(BY_NAME)[-1] == "reference"


def test_a_learned_bias_is_not_given_to_a_backend_without_its_gradient() -> None:
    slope = torch.ones(4, 1, 1, requires_grad=True)
    call = replace(make_call(40, 7), bias=lambda distance: -slope * distance)
    assert chosen(call) == "sdpa"  # and where its mask would be large:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdpa, "LARGE_MASK", 4 * 40 * 40 - 1)
        assert chosen(call) == "tiled"
    attend(call).sum().backward()
    assert slope.grad is not None and slope.grad.abs().max() > 0
    with use_backend("cpu_banded"), pytest.raises(UserError) as error:
        attend(call)
    assert str(error.value) == (
        "attention backend 'cpu_banded' cannot answer this call: its backward gives no gradient to a learned score bias"
    )


def test_refusals_name_the_reason() -> None:
    free = chosen(make_call(9, 4))
    with use_backend("cpu_banded"), pytest.raises(UserError) as error:
        attend(make_call(9, None))
    assert str(error.value) == (
        "attention backend 'cpu_banded' cannot answer this call: it is for a window; a global layer sees every key"
    )
    with use_backend("xformers"), pytest.raises(UserError) as error:
        attend(make_call(9, 4))
    assert str(error.value) == ("attention backend 'xformers' cannot answer this call: its kernels need CUDA, not cpu")
    with pytest.raises(UserError) as error, use_backend("flsh"):
        pass
    assert str(error.value).startswith("unknown attention backend 'flsh': ")
    with (
        pytest.raises(UserError, match=r"unknown attention backend 'cpu-banded': did you mean 'cpu_banded'\?"),
        use_backend("cpu-banded"),
    ):
        pass
    assert chosen(make_call(9, 4)) == free  # a refusal leaves nothing forced


def test_cpu_banded_declines_other_devices() -> None:
    call = make_call(9, 4)
    meta = replace(call, q=call.q.to("meta"), k=call.k.to("meta"), v=call.v.to("meta"))
    assert cpu_banded.declines(meta) == "it runs on a CPU, not on meta"
    assert sdpa.declines(meta) is None
    assert attend(meta).shape == call.q.shape


@pytest.mark.parametrize("window", [None, 9, 20])
@pytest.mark.parametrize("pad", [None, (3, 0)])
@pytest.mark.parametrize("value_dim", [4, 6])
def test_the_short_way_to_a_decoding_step_ends_where_the_dispatch_does(
    window: int | None, pad: tuple[int, ...] | None, value_dim: int
) -> None:
    q, k, v = torch.randn(2, 1, 4, 4), torch.randn(2, 9, 2, 4), torch.randn(2, 9, 2, value_dim)
    call = AttentionCall(q, k, v, scale=0.5, window=window, pad=None if pad is None else torch.tensor(pad))
    assert call.features <= cached.HONOURS
    assert steps_by_sdpa(call) and choose(call) is sdpa
    with use_backend("reference"):
        assert not steps_by_sdpa(call)
