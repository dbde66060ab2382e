"""The C kernels for rows: norm, gate, rotation and loss, in both dtypes, against torch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from miniwin.blocks import native
from miniwin.blocks.mlps.swiglu import SwiGLU
from miniwin.blocks.native import rows
from miniwin.blocks.norms.rmsnorm import RMSNorm
from miniwin.blocks.positions import rotation

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=f"no kernels: {native.missing()}")

TYPES = [torch.float32, torch.bfloat16]
# Relative to the largest element, or to 1. torch's float32 softmax over 32,000 numbers errs by 3.3e-6.
CLOSE = {torch.float32: 4e-6, torch.bfloat16: 8e-3}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert not got.isnan().any()
    assert float((got.double() - want).abs().max()) <= CLOSE[dtype] * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("given", TYPES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 16), (3, 5, 48), (700, 64), (130, 1, 272)])
def test_rmsnorm(build: str, shape: tuple[int, ...], dtype: torch.dtype, given: torch.dtype) -> None:
    x, gain, grad = drawn(*shape, dtype=given), 1 + drawn(shape[-1], seed=1), drawn(*shape, dtype=dtype, seed=2)
    out, inverse = rows.rmsnorm(x, gain, 1e-3, dtype, keep=True)
    assert inverse is not None and out.dtype == dtype
    to_x, to_gain = rows.rmsnorm_backward(x, gain, inverse, grad)
    assert to_x.dtype == given and to_gain.dtype == torch.float32
    wide, factor = x.double().requires_grad_(), gain.double().requires_grad_()
    want = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt() * factor
    expected = torch.autograd.grad(want, (wide, factor), grad.double())
    close(out, want.detach(), dtype)
    close(to_x, expected[0], given)
    close(to_gain, expected[1], torch.float32)


def test_sums_over_rows_are_the_same_for_any_number_of_threads(build: str) -> None:
    x, gain, grad = drawn(999, 64), drawn(64, seed=1), drawn(999, 64, seed=2)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        _, inverse = rows.rmsnorm(x, gain, 1e-6, torch.float32, keep=True)
        assert inverse is not None
        found.append(rows.rmsnorm_backward(x, gain, inverse, grad)[1])
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(16,), (7, 32), (300, 3, 80)])
def test_swiglu(build: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    gate, up, grad = (drawn(*shape, dtype=dtype, seed=i) for i in range(3))
    gate.view(-1)[:6] = torch.tensor([300.0, -300.0, 90.0, -90.0, 0.0, -20.0], dtype=dtype)
    wide, other = gate.double().requires_grad_(), up.double().requires_grad_()
    want = functional.silu(wide) * other
    expected = torch.autograd.grad(want, (wide, other), grad.double())
    close(rows.swiglu(gate, up), want.detach(), dtype)
    for got, right in zip(rows.swiglu_backward(grad, gate, up), expected, strict=True):
        close(got, right, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("dim", "half"), [(32, 16), (64, 32), (80, 32), (64, 16)])
def test_rotation(build: str, dim: int, half: int, each: bool, dtype: torch.dtype) -> None:
    """each: rows of the batch have angles of their own. The tensor is not contiguous: it lies head by head."""
    x = drawn(3, 4, 37, dim, dtype=dtype).transpose(1, 2)
    angle = drawn(3 if each else 1, 37, half, seed=1)
    a, b = x.double()[..., :half], x.double()[..., half : 2 * half]
    cos, sin = angle.double().cos().unsqueeze(2), angle.double().sin().unsqueeze(2)
    want = torch.cat((a * cos - b * sin, b * cos + a * sin, x.double()[..., 2 * half :]), -1)
    got = rows.rotate(x, angle.cos(), angle.sin(), 1.0)
    close(got, want, dtype)
    close(rows.rotate(got, angle.cos(), angle.sin(), -1.0), x.double(), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [16, 6400, 32000])  # the last wider than a row whose powers are kept
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_loss_and_its_gradient(build: str, width: int, scale: float, dtype: torch.dtype) -> None:
    logits = 5 * drawn(40, width, dtype=dtype)
    logits[3, 5] = -float("inf")
    logits[4, 7] = 2000.0
    targets = torch.randint(0, width, (40,), generator=torch.Generator().manual_seed(1))
    targets[4] = 9  # a probability far below the smallest number
    targets[[2, 17]] = -100
    wide = logits.double().requires_grad_()
    want = functional.cross_entropy(wide * scale, targets, reduction="none")
    # The kernel's gradient is divided by the scale.
    (expected,) = torch.autograd.grad(want.sum() / scale, wide)
    losses, want = rows.softmax_loss(logits, targets, -100, scale), want.detach()
    assert float((losses.double() - want).abs().max() / want.abs().max()) < 1e-6
    close(logits, expected, dtype)
    assert not logits[[2, 17]].any() and not losses[[2, 17]].any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(16,), (300, 80)])
def test_sums_take_a_product_in(build: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    total, one, two = torch.full(shape, torch.nan), drawn(*shape, dtype=dtype), drawn(*shape, dtype=dtype, seed=1)
    rows.add(total, one, first=True)
    rows.add(total, two, first=False)
    assert torch.equal(total, one.float() + two.float())


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_number_is_not_hidden(build: str, dtype: torch.dtype) -> None:
    logits = drawn(4, 64, dtype=dtype)
    logits[1, 40] = float("nan")
    losses = rows.softmax_loss(logits, torch.tensor([1, 2, 3, 4]), -100, 1.0)
    assert losses.isnan().tolist() == [False, True, False, False]
    x = drawn(2, 64, dtype=dtype)
    x[1, 3] = float("nan")
    assert rows.rmsnorm(x, torch.ones(64), 1e-6, dtype, keep=False)[0].isnan().any(1).tolist() == [False, True]
    assert rows.swiglu(x, x).isnan().sum() == 1
    # NaN with all bits of its fraction set: rounding it like a number would give a number.
    strange = torch.full((1, 16), -1, dtype=torch.int32).view(torch.float32)
    assert rows.rmsnorm(strange, torch.ones(16), 1e-6, dtype, keep=False)[0].isnan().all()


def test_the_layers_take_them_and_do_without(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients of the modules that use the kernels, with and without them: equal up to rounding."""
    torch.manual_seed(0)
    norm, mlp = RMSNorm(64, 1e-6), SwiGLU(64, 96)
    x, angle = drawn(5, 7, 64), drawn(1, 7, 16)

    def answers() -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        turned = rotation.rotate(leaf.unflatten(-1, (2, 32)), angle.cos(), angle.sin()).flatten(-2)
        out = mlp(norm(turned))
        parameters = [*norm.parameters(), *mlp.parameters()]
        grads = torch.autograd.grad(out, [leaf, *parameters], drawn(5, 7, 64, seed=3))
        with torch.no_grad():
            again = mlp(norm(rotation.rotate(x.unflatten(-1, (2, 32)), angle.cos(), angle.sin()).flatten(-2)))
        return [out.detach(), again, *grads]

    called: list[str] = []
    run = native.run

    def noted(name: str, *arguments: object) -> None:
        called.append(name)
        run(name, *arguments)

    monkeypatch.setattr(native, "run", noted)
    mine = answers()
    assert {"miniwin_rmsnorm", "miniwin_rmsnorm_backward", "miniwin_swiglu", "miniwin_swiglu_backward"} <= set(called)
    assert called.count("miniwin_rotate") == 3
    called.clear()
    monkeypatch.setattr(native, "missing", lambda: "they are not here")
    for a, b in zip(mine, answers(), strict=True):
        close(a, b.double(), torch.float32)
    assert not called


def test_a_rotation_can_be_differentiated_twice(build: str) -> None:
    x, angle = drawn(1, 3, 2, 32).requires_grad_(), drawn(1, 3, 16)
    (slope,) = torch.autograd.grad(rotation.rotate(x, angle.cos(), angle.sin()).pow(3).sum(), x, create_graph=True)
    slope.sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


def test_forward_derivatives_are_not_lost(build: str) -> None:
    gate, way, mlp = drawn(3, 32), drawn(3, 32, seed=1), SwiGLU(32, 32)
    with torch.no_grad(), forward_ad.dual_level():
        slope = forward_ad.unpack_dual(mlp.gated(forward_ad.make_dual(gate, way), gate)).tangent
    assert slope is not None
    wide = gate.double().requires_grad_()
    # An elementwise function: its directional derivative is the derivative times the direction.
    (each,) = torch.autograd.grad((functional.silu(wide) * gate.double()).sum(), wide)
    close(slope, each * way.double(), torch.float32)
