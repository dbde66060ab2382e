"""The C kernels of attention: every build against the reference in float64, at all sizes where their code branches.

test_attention_ops.py tests what every backend must do; here are tiles, runs, rings, pieces and caches.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from miniwin.blocks import AttentionCall, attend, native
from miniwin.blocks.attention.cached import attend_cached
from miniwin.blocks.attention_ops import choose, cpu_banded, cpu_native, reference, use_backend
from miniwin.blocks.int8.rows import quantised
from miniwin.blocks.native import attention as kernels
from miniwin.blocks.norms.rmsnorm import RMSNorm
from miniwin.blocks.spec import UserError

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=f"no kernels: {native.missing()}")

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of the largest element


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Several threads: rows are cut into runs, whose gradients overlap at the seams."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def made(
    n: int,
    m: int,
    heads: int,
    kv_heads: int,
    dim: int,
    window: int | None,
    batch: int = 2,
    pad: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> AttentionCall:
    q = drawn(batch, n, heads, dim, dtype=dtype, seed=1)
    k = drawn(batch, m, kv_heads, dim, dtype=dtype, seed=2)
    v = drawn(batch, m + 1, kv_heads, dim, dtype=dtype, seed=3)[:, 1:]
    return AttentionCall(q, k, v, scale=1.5 * dim**-0.5, window=window, pad=pad)


def widened(call: AttentionCall) -> AttentionCall:
    q, k, v = (t.detach().double().requires_grad_(t.requires_grad) for t in (call.q, call.k, call.v))
    return AttentionCall(q, k, v, scale=call.scale, window=call.window, pad=call.pad)


# The builds one after another, so that what is exact is computed once for all of them.
each_build = pytest.mark.parametrize("build", list(native.BUILDS), indirect=True)


def exact(call: AttentionCall, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output in float64, and the gradients of q, k and v."""
    q, k, v = (t.double().requires_grad_() for t in (call.q, call.k, call.v))
    want = reference.run(replace(call, q=q, k=k, v=v))
    return want.detach(), torch.autograd.grad(want, (q, k, v), upstream.double())


def close(got: Tensor, want: Tensor, dtype: torch.dtype = torch.float32) -> None:
    assert not got.isnan().any()
    assert float((got.double() - want).abs().max()) <= CLOSE[dtype] * max(float(want.abs().max()), 1.0)


def found(call: AttentionCall, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The kernels' output and gradients."""
    out, lse = kernels.forward(call.q, call.k, call.v, call.scale, call.window, call.pad, keep=True)
    assert lse is not None
    more = call.scale, call.window, call.pad
    return out, tuple(kernels.backward(upstream, call.q, call.k, call.v, out, lse, *more))


# n, m, heads, kv_heads, dim, window
SHAPES = [
    (1, 1, 1, 1, 16, None),
    (3, 3, 71, 1, 16, None),  # more rows to a token than a tile is meant to have
    (130, 130, 8, 2, 64, 1),
    (130, 130, 3, 3, 48, 2),
    (257, 257, 8, 1, 32, 64),
    (700, 700, 4, 2, 16, 17),  # several runs
    (800, 800, 4, 1, 16, 65),
    (800, 891, 6, 2, 32, 100),  # runs that begin in the middle of a block of keys
    (600, 600, 2, 1, 16, None),
    (517, 700, 5, 1, 96, 61),
    (40, 40, 8, 8, 160, None),
    (65, 1500, 2, 1, 16, None),  # more keys than a tile holds scores of
    (33, 1600, 4, 4, 128, 1400),
    (2, 300, 2, 2, 256, None),
    (600, 600, 8, 2, 64, 64),  # the sizes of the 26 M model
    (700, 700, 8, 2, 64, 512),
    (130, 130, 7, 1, 32, 20),
    (130, 150, 12, 2, 16, 33),
    (1, 2500, 8, 2, 64, None),  # workers share the keys
    (2, 2300, 4, 2, 80, None),
    (1, 2100, 9, 1, 32, None),
]


# A call, the gradient of its output, the exact output, the exact gradients.
Case = tuple[AttentionCall, Tensor, Tensor, tuple[Tensor, ...]]


@lru_cache(maxsize=1)
def case(shape: tuple[int, int, int, int, int, int | None], dtype: torch.dtype) -> Case:
    call = made(*shape, dtype=dtype)
    upstream = drawn(*call.q.shape, dtype=dtype)
    return call, upstream, *exact(call, upstream)


@each_build
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients(
    build: str, shape: tuple[int, int, int, int, int, int | None], dtype: torch.dtype
) -> None:
    call, upstream, want, expected = case(shape, dtype)
    out, grads = found(call, upstream)
    close(out, want, dtype)
    for got, right in zip(grads, expected, strict=True):
        close(got, right, dtype)


@lru_cache(maxsize=1)
def with_a_gap(n: int, window: int | None, gap: float, dtype: torch.dtype) -> Case:
    call = made(n, n, 2, 1, 16, window, batch=1)
    with torch.no_grad():
        for t in (call.q, call.k):
            t[..., 0] = 0.0
        call.q[..., 0] = 1.0
        call.k[:, n // 2 :, :, 0] = gap / call.scale
    call = replace(call, q=call.q.to(dtype), k=call.k.to(dtype), v=call.v.to(dtype))
    upstream = drawn(*call.q.shape, dtype=dtype)
    return call, upstream, *exact(call, upstream)


@each_build
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "window", "gap"), [(2048, None, 110.0), (2048, None, -110.0), (2300, 1500, 200.0)])
def test_keys_far_below_later_ones_are_forgotten(
    build: str, n: int, window: int | None, gap: float, dtype: torch.dtype
) -> None:
    """exp(-104) is 0 in float32, so the sums over earlier keys must become 0 too."""
    call, upstream, want, expected = with_a_gap(n, window, gap, dtype)
    out, grads = found(call, upstream)
    loose = 1e-3 if dtype == torch.float32 else 5e-2  # scores of some hundred have lost as many digits
    for got, right in zip((out, *grads), (want, *expected), strict=True):
        got, right = got[..., 1:], right[..., 1:]  # in the first channel, gradients of q are a small rest of large ones
        assert float((got.double() - right).abs().max()) <= loose * float(right.abs().max())


def test_a_thread_that_ends_leaves_no_memory_behind() -> None:
    call = made(256, 4096, 2, 2, 128, None, batch=1)

    def held_after(threads: int) -> int:
        for _ in range(threads):
            one = threading.Thread(target=kernels.forward, args=(call.q, call.k, call.v, call.scale, None, None))
            one.start()
            one.join()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    torch.set_num_threads(1)
    before = held_after(3)
    assert held_after(15) - before < 30 * 2**20, "4 MiB a thread, had they been kept"


def test_a_default_device_is_for_new_tensors_only() -> None:
    call = made(70, 70, 4, 2, 16, 9)
    for t in (call.q, call.k, call.v):
        t.requires_grad_()
    want = attend(call)
    expected = torch.autograd.grad(want.square().sum(), (call.q, call.k, call.v))
    for backend in ("cpu_native", "cpu_banded"):
        with use_backend(backend), torch.device("meta"):
            got = attend(call)
            grads = torch.autograd.grad(got.square().sum(), (call.q, call.k, call.v))
        close(got.detach(), want.detach().double())
        for mine, right in zip(grads, expected, strict=True):
            close(mine, right.double())


Stored = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]  # keys, values, and the scales of int8


@lru_cache(maxsize=1)
def long_cache(n: int, batch: int, dtype: torch.dtype) -> tuple[AttentionCall, Stored, Tensor]:
    m, pad = 9000, None if batch == 1 else torch.tensor([4000, 8990])
    q_dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    call = made(n, m, 4, 2, 128, None, batch=batch, pad=pad, dtype=q_dtype)
    k, v, scales = call.k, call.v, None
    if dtype == torch.int8:
        (k, k_scale), (v, v_scale) = quantised(k), quantised(v)
        scales = k_scale, v_scale
        call = replace(call, k=k * k_scale.unsqueeze(-1), v=v * v_scale.unsqueeze(-1))
    real = torch.ones(()) if pad is None else (torch.arange(m - n, m) >= pad.unsqueeze(1))[..., None, None]
    return call, (k, v, scales), reference.run(widened(call)) * real


@each_build
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("n", "batch"), [(70, 1), (300, 1), (300, 2)])
def test_bands_of_a_long_cache(build: str, n: int, batch: int, dtype: torch.dtype) -> None:
    """More keys than fit into a processor's cache: several tiles go through them band by band."""
    call, (k, v, scales), want = long_cache(n, batch, dtype)
    out = kernels.forward(call.q, k, v, call.scale, None, call.pad, scales=scales)[0]
    assert float((out.double() - want).abs().max()) <= CLOSE[call.q.dtype] * float(want.abs().max())


def test_a_small_ring(build: str) -> None:
    """A global layer has more keys than a worker's ring: blocks are unpacked again for every tile."""
    n = 2600  # 41 blocks of 256 channels, twice, are more than a ring
    call = made(n, n, 1, 1, 256, None, batch=1)
    out, lse = kernels.forward(call.q, call.k, call.v, call.scale, None, None, keep=True)
    assert lse is not None
    rows = slice(n - 40, n)
    upstream = torch.zeros_like(out)
    upstream[:, rows] = drawn(1, 40, 1, 256)
    found = kernels.backward(upstream, call.q, call.k, call.v, out, lse, call.scale, None, None)
    part = AttentionCall(call.q[:, rows].requires_grad_(), call.k.requires_grad_(), call.v.requires_grad_(), call.scale)
    wide = widened(part)
    want = reference.run(wide)
    close(out[:, rows], want.detach())
    grads = torch.autograd.grad(want, (wide.q, wide.k, wide.v), upstream[:, rows].double())
    for got, expected in zip((found[0][:, rows], *found[1:]), grads, strict=True):
        close(got, expected)


@lru_cache(maxsize=1)
def padded(window: int | None, dtype: torch.dtype) -> tuple[Tensor, Case]:
    """Which rows are real tokens, and the case: outputs of padding do not count."""
    pad = torch.tensor([0, 5, 70, 699])
    call = made(600, 700, 4, 2, 32, window, batch=4, pad=pad, dtype=dtype)
    real = (torch.arange(100, 700) >= pad.unsqueeze(1))[..., None, None]
    upstream = drawn(*call.q.shape, dtype=dtype) * real
    return real, (call, upstream, *exact(call, upstream))


@each_build
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 9, 300])
def test_padding(build: str, window: int | None, dtype: torch.dtype) -> None:
    real, (call, upstream, want, expected) = padded(window, dtype)
    out, grads = found(call, upstream)
    close(out, want * real, dtype)
    for got, right in zip(grads, expected, strict=True):
        close(got, right, dtype)


@pytest.mark.parametrize("n", [1, 5, 40])
@pytest.mark.parametrize("m", [77, 2600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("padded", [False, True])
def test_a_cache_is_read_as_it_is_stored(build: str, n: int, m: int, dtype: torch.dtype, padded: bool) -> None:
    pad = torch.tensor([0, 31]) if padded else None
    call = made(n, m, 8, 2, 32, None, pad=pad)
    k, v, scales = call.k, call.v, None
    if dtype == torch.int8:
        (k, k_scale), (v, v_scale) = quantised(k), quantised(v)
        scales = (k_scale, v_scale)
        exact = [k.double() * k_scale.unsqueeze(-1), v.double() * v_scale.unsqueeze(-1)]
    else:
        k, v = k.to(dtype), v.to(dtype)
        exact = [k.double(), v.double()]
    asked = AttentionCall(call.q, k, v, scale=call.scale, pad=pad)
    with torch.no_grad():
        assert cpu_native.reads(asked)
        got = attend_cached(asked, scales)
        want = reference.run(AttentionCall(call.q.double(), *exact, scale=call.scale, pad=pad))
    real = torch.ones(2, n, 1, 1) if pad is None else (torch.arange(m - n, m) >= pad.unsqueeze(1))[..., None, None]
    close(got * real, want * real)


def test_keys_laid_out_head_by_head(build: str) -> None:
    """Only the last dimension has to be contiguous."""
    call = made(150, 150, 4, 2, 32, 20)
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (call.q, call.k, call.v))
    out, _ = kernels.forward(q, k, v, call.scale, 20, None)
    close(out, reference.run(widened(call)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_hidden(build: str, value: float, dtype: torch.dtype) -> None:
    """A NaN must show, as in a run that diverges. A query that does not see the NaN's key does not change."""
    call = made(200, 200, 2, 1, 32, 10, batch=1, dtype=dtype)
    clean, _ = kernels.forward(call.q, call.k, call.v, call.scale, 10, None)
    call.k[0, 100, 0, 3] = value
    out, _ = kernels.forward(call.q, call.k, call.v, call.scale, 10, None)
    assert out[0, 100:110].isnan().any(-1).all() if value != value else out[0, 100:110].isnan().any()
    assert torch.equal(out[0, :100], clean[0, :100]) and torch.equal(out[0, 110:], clean[0, 110:])
    step, _ = kernels.forward(call.q[:, 104:105], call.k[:, 95:105], call.v[:, 95:105], call.scale, None, None)
    assert step.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_every_time(build: str, dtype: torch.dtype) -> None:
    """No bit depends on which worker takes which part. No bit of an output depends on the number of workers."""
    call = made(1200, 1200, 4, 2, 32, 33, dtype=dtype)
    out, lse = kernels.forward(call.q, call.k, call.v, call.scale, 33, None, keep=True)
    assert lse is not None
    first = kernels.backward(out, call.q, call.k, call.v, out, lse, call.scale, 33, None)
    torch.set_num_threads(1)
    alone, _ = kernels.forward(call.q, call.k, call.v, call.scale, 33, None)
    assert torch.equal(alone, out)
    torch.set_num_threads(3)
    for _ in range(5):
        again, _ = kernels.forward(call.q, call.k, call.v, call.scale, 33, None)
        assert torch.equal(again, out)
        grads = kernels.backward(out, call.q, call.k, call.v, out, lse, call.scale, 33, None)
        assert all(torch.equal(a, b) for a, b in zip(grads, first, strict=True))


def test_what_they_do_not_take_is_refused_with_the_reason() -> None:
    call = made(9, 9, 4, 2, 32, 4)
    assert cpu_native.declines(call) is None
    narrow = made(9, 9, 4, 2, 24, 4)
    assert cpu_native.declines(narrow) == "its heads have a multiple of 16 channels, 256 at most; these have 24"
    many = made(9, 9, 130, 1, 16, 4)
    assert cpu_native.declines(many) == "at most 128 query heads share a key/value head; here 130 do"
    double = "torch.float64, torch.float64 and torch.float64"
    assert cpu_native.declines(widened(call)) == f"it is for float32 or bfloat16 throughout; this is {double}"
    soft = AttentionCall(call.q, call.k, call.v, scale=1.0, softcap=30.0)
    assert cpu_native.declines(soft) == "it takes no score soft-cap"


def test_compiled_code_goes_another_way() -> None:
    call = made(40, 40, 2, 1, 16, 7)
    compiled = torch.compile(lambda q: attend(AttentionCall(q, call.k, call.v, call.scale, window=7)), backend="eager")
    close(compiled(call.q), reference.run(widened(call)))


def test_what_has_no_memory_goes_another_way() -> None:
    call = made(40, 40, 2, 1, 16, 7, batch=3)

    def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(AttentionCall(q[None], k[None], v[None], call.scale, window=7))[0]

    with torch.no_grad(), use_backend("reference"):
        want = attend(call)
    with torch.no_grad(), use_backend("sdpa"):
        close(torch.func.vmap(attended)(call.q, call.k, call.v), want.double())
        assert torch.func.vmap(RMSNorm(16, 1e-6))(call.q).shape == call.q.shape
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        q, k, v = (mode.from_tensor(t) for t in (call.q, call.k, call.v))
        assert cpu_native.declines(AttentionCall(q, k, v, 1.0)) is not None
        assert RMSNorm(16, 1e-6)(q).shape == q.shape
    empty = made(0, 9, 2, 1, 16, 7)
    assert cpu_native.declines(empty) is not None and attend(empty).shape == empty.q.shape
    mixed = AttentionCall(call.q, call.k, call.v.bfloat16(), 1.0)
    assert (
        cpu_native.declines(mixed)
        == "it is for float32 or bfloat16 throughout; this is torch.float32, torch.float32 and torch.bfloat16"
    )


def test_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(native.SWITCH, "0")
        patch.setattr(native, "_found", cache(native._found.__wrapped__))  # as in a process that starts now
        assert native.missing() == "MINIWIN_NATIVE=0 switches it off"
        assert choose(made(1, 9, 2, 1, 16, 4)) is not cpu_native and choose(made(9, 9, 2, 2, 16, 4)) is cpu_banded
    monkeypatch.setattr(native, "missing", lambda: "they are not here")
    assert cpu_native.declines(made(9, 9, 4, 2, 32, 4)) == "they are not here"
    call = made(1, 30, 4, 2, 32, None)
    with torch.no_grad(), use_backend(None):
        close(attend_cached(call), reference.run(widened(call)))


def test_why_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kernels are not compiled, are no library, come from other sources, or do not run on this machine."""
    folder = Path(native.__file__).parent
    found = native._found.__wrapped__
    monkeypatch.delenv(native.SWITCH, raising=False)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(native, "able", lambda: ["_avx2"])
    assert found() == "its kernels were not compiled when miniwin was installed"
    (tmp_path / "_avx2.so").write_bytes(b"no library")
    assert str(found()).startswith("its kernels cannot be loaded: ")
    (tmp_path / "_avx2.so").unlink()
    shutil.copy(folder / "_avx2.so", tmp_path)
    assert found()[0] == "_avx2"  # as in a wheel, without sources
    (tmp_path / "rows.c").write_text("int other;")
    assert found() == "its kernels were compiled from other sources than these: install miniwin again"
    monkeypatch.setattr(native, "able", lambda: [])
    assert found() == "its kernels are for Linux on x86-64 with AVX2 or AVX-512"
    monkeypatch.setenv(native.SWITCH, "off")
    expected = "expected 0, to go without kernels, 1, or a build: amx, avx512, avx2"
    with pytest.raises(UserError, match=f"MINIWIN_NATIVE: got 'off' in the environment; {expected}"):
        found()


def test_a_build_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = native._found.__wrapped__
    monkeypatch.setenv(native.SWITCH, "avx2")
    if "_avx2" in native.able():
        assert found()[0] == "_avx2"
    monkeypatch.setattr(native, "able", lambda: ["_avx512", "_avx2"])
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(UserError, match="got 'avx2' in the environment, which cannot be used: its kernels were not"):
        found()
    monkeypatch.setenv(native.SWITCH, "amx")
    with pytest.raises(UserError, match="MINIWIN_NATIVE: got 'amx' in the environment; this processor can run avx512"):
        found()


def test_no_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        miniwin_attention_forward = staticmethod(lambda call: 1)

    monkeypatch.setattr(native, "_found", lambda: ("_avx2", Library()))
    with pytest.raises(native.MemoryRefused, match="miniwin_attention_forward: no memory; use fewer tokens at a time"):
        attend(made(9, 9, 2, 1, 16, 4))
