"""Next-token loss and kl in stretches of tokens, against all the logits at once; and the distances of layers."""

from __future__ import annotations

import pytest
import torch
from float64 import assert_as_near
from torch import Tensor
from torch.nn import functional as F

from miniwin.data.rows import IGNORED
from miniwin.training.distilling.head_loss import Head, Mixed, taught_loss
from miniwin.training.distilling.lessons import of_rows, of_tokens

TOKENS, VOCABULARY, HIDDEN, TEACHERS = 37, 53, 24, 40
SHAPES = [(None, None), (0.25, None), (None, 2.0), (4.0, 5.0)]


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """hidden (T, C) and head (V, C) that want gradients, targets (T,), states (T, C') and their head (V, C')."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    hidden, weight = drawn(TOKENS, HIDDEN).requires_grad_(), (0.5 * drawn(VOCABULARY, HIDDEN)).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    targets[::5] = IGNORED
    return hidden, weight, targets, drawn(TOKENS, TEACHERS), 0.4 * drawn(VOCABULARY, TEACHERS)


def naive(
    hidden: Tensor, own: Head, targets: Tensor, states: Tensor, teacher: Head, temperature: float, weight: float
) -> Mixed:
    z, theirs = _logits(hidden, own), _logits(states, teacher)
    real = targets != IGNORED
    next_token = F.cross_entropy(z[real], targets[real])
    p, log_q = torch.softmax(theirs / temperature, -1), torch.log_softmax(z / temperature, -1)
    kl = F.kl_div(log_q[real], p[real], reduction="batchmean") * temperature**2
    return Mixed((1 - weight) * next_token + weight * kl, next_token, kl)


def _logits(hidden: Tensor, head: Head) -> Tensor:
    logits = hidden @ head.weight.t()
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = logits if head.logit_scale is None else logits * head.logit_scale
    return logits if head.logit_softcap is None else head.logit_softcap * torch.tanh(logits / head.logit_softcap)


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(3 * loss, of))  # a factor: what comes from above must reach them


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("chunk", [1, 7, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_all_the_logits_at_once(
    shape: tuple[float | None, float | None], chunk: int, temperature: float, weight: float
) -> None:
    hidden, own, targets, states, theirs = inputs(torch.float64)
    given = hidden, Head(own, *shape), targets, states, Head(theirs, *reversed(shape)), temperature, weight
    got, expected = taught_loss(*given, chunk=chunk), naive(*given)
    assert got.loss.dtype == torch.float64 and not got.kl.requires_grad and not got.next_token.requires_grad
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    for mine, wanted in zip(gradients(got.loss, hidden, own), gradients(expected.loss, hidden, own), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_float32_is_as_near_to_float64_as_the_naive_one(temperature: float) -> None:
    wide = inputs(torch.float64)
    narrow = inputs()

    def found(tensors: tuple[Tensor, ...], how: object) -> list[Tensor]:
        hidden, own, targets, states, theirs = tensors
        losses = how(hidden, Head(own), targets, states, Head(theirs), temperature, 0.5)  # type: ignore[operator]
        return [losses.loss.detach(), losses.next_token, losses.kl, *gradients(losses.loss, hidden, own)]

    exact = found(wide, naive)
    for mine, usual, true in zip(found(narrow, taught_loss), found(narrow, naive), exact, strict=True):
        assert_as_near(mine, usual.detach(), true.detach())


def test_under_autocast_the_products_are_bfloat16_and_the_sums_are_not() -> None:
    hidden, own, targets, states, theirs = inputs()
    given = Head(own), targets, states, Head(theirs), 1.0, 0.5
    with torch.autocast("cpu", torch.bfloat16):
        got = taught_loss(hidden, *given)
    assert got.loss.dtype == torch.float32
    torch.testing.assert_close(got, naive(hidden, *given), rtol=0.02, atol=0.02)
    for mine, exact in zip(
        gradients(got.loss, hidden, own), gradients(naive(hidden, *given).loss, hidden, own), strict=True
    ):
        assert mine.dtype == torch.float32
        assert float((mine - exact).norm() / exact.norm()) < 0.03


def test_a_teacher_that_is_the_student_pulls_nowhere() -> None:
    hidden, own, targets, _, _ = inputs()
    got = taught_loss(hidden, Head(own), targets, hidden.detach(), Head(own.detach()), 2.0, 1.0)
    assert not got.kl and not got.loss.detach() and float(got.next_token) > 1
    assert all(not gradient.any() for gradient in gradients(got.loss, hidden, own))


def test_without_a_counted_target_there_is_no_loss_and_no_gradient() -> None:
    hidden, own, targets, states, theirs = inputs()
    got = taught_loss(hidden, Head(own), torch.full_like(targets, IGNORED), states, Head(theirs), 1.0, 0.5)
    assert all(loss.isnan() for loss in got)
    assert all(not gradient.any() for gradient in gradients(got.loss, hidden, own))


def test_a_target_outside_the_vocabulary_is_an_error() -> None:
    hidden, own, targets, states, theirs = inputs()
    targets[3] = VOCABULARY
    with pytest.raises(IndexError, match=f"target {VOCABULARY} is out of bounds"):
        taught_loss(hidden, Head(own), targets, states, Head(theirs), 1.0, 0.5)


def test_no_gradient_is_computed_that_nobody_wants() -> None:
    hidden, own, targets, states, theirs = inputs()
    frozen = taught_loss(hidden, Head(own.detach()), targets, states, Head(theirs), 1.0, 0.5)
    whole = taught_loss(hidden, Head(own), targets, states, Head(theirs), 1.0, 0.5)
    assert torch.equal(gradients(frozen.loss, hidden)[0], gradients(whole.loss, hidden)[0])
    with torch.no_grad():
        assert not taught_loss(hidden, Head(own), targets, states, Head(theirs), 1.0, 0.5).loss.requires_grad


def test_distances_are_means_over_counted_tokens_relative_to_the_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    own, said = (torch.randn(2, 5, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    counted = torch.tensor([[True, True, False, True, False], [False, False, True, False, False]])
    by_token, by_row = [], []
    for row in range(2):
        size = sum(said[row, i].square().sum() for i in range(5) if counted[row, i]) / counted[row].sum()
        for i in range(5):
            if counted[row, i]:
                far = (own[row, i] - said[row, i]).square().sum()
                by_token.append(far / said[row, i].square().sum())
                by_row.append(far / size)
    torch.testing.assert_close(of_tokens(own, said, counted), torch.stack(by_token).mean())
    torch.testing.assert_close(of_rows(own, said, counted), torch.stack(by_row).mean())
    assert of_tokens(said, said, counted) == 0
