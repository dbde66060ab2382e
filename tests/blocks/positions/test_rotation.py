"""Rotation in its three forms against the formula in float64, on every memory layout that a layer makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from miniwin.blocks.positions.rotation import _as_complex, _in_halves, _traceable, rotate

HEADS, TOKENS, PAIRS = 3, 5, 4


def angles(batch: int) -> Tensor:
    return torch.rand(batch, TOKENS, PAIRS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 6


def formula(x: Tensor, angle: Tensor, interleaved: bool) -> Tensor:
    """The formula, channel pair by channel pair, in float64."""
    out = x.double().clone()
    for k in range(PAIRS):
        a, b = (2 * k, 2 * k + 1) if interleaved else (k, k + PAIRS)
        cos, sin = angle[..., k, None].cos(), angle[..., k, None].sin()
        out[..., a] = x[..., a].double() * cos - x[..., b].double() * sin
        out[..., b] = x[..., b].double() * cos + x[..., a].double() * sin
    return out


def rows(layout: str, dtype: torch.dtype) -> Tensor:
    """(2, N, H, D) with memory laid out in different ways."""
    torch.manual_seed(0)
    if layout == "heads first":
        return torch.randn(2, HEADS, TOKENS, 8).to(dtype).transpose(1, 2)
    if layout == "a slice":
        return torch.randn(2, TOKENS, HEADS, 13).to(dtype)[..., 3:11]
    if layout == "channels apart":
        return torch.randn(2, TOKENS, 8, HEADS).to(dtype).transpose(2, 3)
    return torch.randn(2, TOKENS, HEADS, 8 if layout == "whole" else 14).to(dtype)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", ["whole", "part", "heads first", "a slice", "channels apart"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_rotation_is_its_formula(dtype: torch.dtype, layout: str, batch: int, interleaved: bool) -> None:
    x, angle = rows(layout, dtype).requires_grad_(), angles(batch)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    got = rotate(x, angle.cos().to(wide), angle.sin().to(wide), interleaved)
    exact = x.detach().double().requires_grad_()
    want = formula(exact, angle, interleaved)
    rtol = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 5e-3}[dtype]
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=rtol, atol=rtol)
    pull = torch.randn(got.shape).to(dtype)
    (mine,), (theirs,) = torch.autograd.grad(got, x, pull), torch.autograd.grad(want, exact, pull.double())
    torch.testing.assert_close(mine.double(), theirs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("interleaved", [False, True])
def test_what_is_compiled_is_the_same_rotation(interleaved: bool) -> None:
    x, angle = rows("whole", torch.float64), angles(1).unsqueeze(-2)
    eager = _as_complex if interleaved else _in_halves
    got, want = (form(x, angle.cos(), angle.sin(), interleaved) for form in (_traceable, eager))
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)
