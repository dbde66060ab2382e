"""Head and cross-entropy in stretches of tokens, against all the logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from float64 import assert_as_near
from tiny_runs import tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from miniwin.blocks import Decoder
from miniwin.training import loss
from miniwin.training.loss import IGNORED, linear_cross_entropy, next_token_loss

TOKENS, VOCABULARY, HIDDEN = 37, 53, 24


def inputs(
    dtype: torch.dtype = torch.float32, tokens: int = TOKENS, vocabulary: int = VOCABULARY, size: int = HIDDEN
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (T, C) and a head (V, C) that want gradients, and targets (T,), some of them ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, size, generator=generator).to(dtype).requires_grad_()
    weight = (0.5 * torch.randn(vocabulary, size, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    targets[::5] = IGNORED
    return hidden, weight, targets


def naive(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float | None, cap: float | None) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = logits if scale is None else logits * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return torch.nn.functional.cross_entropy(logits, targets)


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(3 * loss, of))  # a factor: what comes from above must reach them


CAPS = [(None, None), (0.25, None), (None, 2.0), (4.0, 5.0)]


@pytest.mark.parametrize(("scale", "cap"), CAPS)
@pytest.mark.parametrize("chunk", [1, 7, 37, 100])
def test_it_equals_all_the_logits_at_once(chunk: int, scale: float | None, cap: float | None) -> None:
    hidden, weight, targets = inputs()
    expected = naive(hidden, weight, targets, scale, cap)
    got = linear_cross_entropy(hidden, weight, targets, scale, cap, chunk)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(gradients(got, hidden, weight), gradients(expected, hidden, weight), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scale", "cap"), CAPS)
def test_gradients_are_those_of_differences(scale: float | None, cap: float | None) -> None:
    hidden, weight, targets = inputs(torch.float64, 11, 7, 5)  # few: each number of both is moved by itself
    torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, scale, cap, 4), (hidden, weight))


@pytest.mark.parametrize("chunk", [7, 37])
def test_under_autocast_only_the_products_are_in_bfloat16(chunk: int) -> None:
    hidden, weight, targets = inputs()
    exact = naive(hidden, weight, targets, 0.5, 3.0)
    with torch.autocast("cpu", torch.bfloat16):
        expected = naive(hidden, weight, targets, 0.5, 3.0)
        got = linear_cross_entropy(hidden, weight, targets, 0.5, 3.0, chunk)
    assert got.dtype == torch.float32 and got != exact
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    mine, theirs, true = (gradients(loss, hidden, weight) for loss in (got, expected, exact))
    for one, other, best in zip(mine, theirs, true, strict=True):
        assert one.dtype == torch.float32
        # Both round products to bfloat16 (8 bits); neither may be further from the truth than that allows.
        torch.testing.assert_close(one, best, rtol=2e-2, atol=2e-2 * float(best.abs().max()))
        assert (one - best).norm() <= 1.5 * (other - best).norm()


def test_bfloat16_weights_and_states() -> None:
    hidden, weight, targets = inputs(torch.bfloat16)
    expected = naive(hidden, weight, targets, None, None)
    got = linear_cross_entropy(hidden, weight, targets, chunk=7)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(gradients(got, hidden, weight), gradients(expected, hidden, weight), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2 * float(theirs.abs().max()))


def test_large_logits_stay_finite() -> None:
    hidden, weight, targets = inputs()
    hidden, weight = (1e3 * hidden).detach().requires_grad_(), weight.detach().requires_grad_()
    got, expected = linear_cross_entropy(hidden, weight, targets, chunk=5), naive(hidden, weight, targets, None, None)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients(got, hidden), gradients(expected, hidden))


class Looks(TorchDispatchMode):
    """How often a number is asked of a tensor."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("scale", "cap"), CAPS)
@pytest.mark.parametrize("size", [1.0, 1e3])  # with the larger, chances that float32 cannot hold
def test_as_on_a_gpu_it_never_waits_for_a_number(
    size: float, scale: float | None, cap: float | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is as exact."""
    monkeypatch.setattr(loss, "LOOKED_AT", ())
    monkeypatch.setattr(loss.rows, "fit", lambda *given: False)
    monkeypatch.setattr(loss, "count_targets", lambda targets, vocabulary: (targets != IGNORED).sum())
    hidden, weight, targets = inputs(dtype)
    hidden = (size * hidden).detach().requires_grad_()
    with Looks() as looks:
        got = linear_cross_entropy(hidden, weight, targets, scale, cap, 7)
    assert looks.count == 0
    expected = naive(hidden, weight, targets, scale, cap)
    exactly = naive(*(wide := (hidden.double(), weight.double())), targets, scale, cap)
    assert_as_near(got, expected, exactly)
    found = (gradients(got, hidden, weight), gradients(expected, hidden, weight), gradients(exactly, *wide))
    for mine, theirs, exact in zip(*found, strict=True):
        assert_as_near(mine, theirs, exact)


def test_a_gpu_takes_longer_chunks() -> None:
    for vocabulary, on_cpu, on_gpu in ((50_304, 256, 1280), (6400, 512, 10_240), (1 << 27, 256, 256)):
        assert (loss.default_chunk(vocabulary, "cpu"), loss.default_chunk(vocabulary, "cuda")) == (on_cpu, on_gpu)


def test_targets_that_are_ignored_pull_at_nothing() -> None:
    hidden, weight, targets = inputs()
    grad = gradients(linear_cross_entropy(hidden, weight, targets, chunk=7), hidden)[0]
    assert not grad[::5].any() and grad[1::5].any()
    nothing = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED))
    assert nothing.isnan(), "a mean of nothing"
    assert not any(grad.any() for grad in gradients(nothing, hidden, weight))  # no number would be true here


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocabulary", "size"), [(VOCABULARY, HIDDEN), (48, 16), (64, 32)])  # as kernels take them
def test_a_target_beyond_the_vocabulary_is_an_error(vocabulary: int, size: int, dtype: torch.dtype) -> None:
    hidden, weight = torch.randn(5, size, dtype=dtype), torch.randn(vocabulary, size, dtype=dtype)
    for wrong in (vocabulary, -1):
        targets = torch.tensor([0, IGNORED, wrong, vocabulary - 1, 1])
        with pytest.raises(
            IndexError, match=f"target {wrong} is out of bounds: the vocabulary has {vocabulary} tokens"
        ):
            linear_cross_entropy(hidden, weight, targets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_targets_are_whole_numbers_and_as_many_as_states(dtype: torch.dtype) -> None:
    hidden, weight = torch.randn(6, 32, dtype=dtype), torch.randn(64, 32, dtype=dtype)
    targets = torch.tensor([0, 63, 5, IGNORED, 7, 9])
    want = linear_cross_entropy(hidden, weight, targets)
    for other in (torch.int32, torch.int16, torch.int8):
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets.to(other)), want, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"got targets of torch.float32; expected whole numbers"):
        linear_cross_entropy(hidden, weight, targets.float())
    for wrong in ((hidden, weight, targets[:5]), (hidden[:, :16], weight, targets), (hidden, weight, targets[None])):
        with pytest.raises(ValueError, match=r"got shapes .*; expected \(..., C\), \(V, C\) and \(...\)"):
            linear_cross_entropy(*wrong)


def test_gradients_are_let_go_of_with_the_graph() -> None:
    hidden, weight, targets = inputs()
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(RuntimeError, match="already been freed"):
        loss.backward()


def test_no_gradient_is_computed_for_nobody() -> None:
    hidden, weight, targets = inputs()
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets).requires_grad
    frozen = linear_cross_entropy(hidden, weight.detach(), targets, chunk=7)
    torch.testing.assert_close(gradients(frozen, hidden), gradients(naive(hidden, weight, targets, None, None), hidden))


def decoder(**changes: object) -> Decoder:
    torch.manual_seed(0)
    model: Decoder = tiny_model(**changes).build()
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_trains_as_with_its_logits(tied: bool) -> None:
    model = decoder(tie_word_embeddings=tied, logit_scale=0.5, logit_softcap=8.0)
    ids = torch.randint(0, 256, (2, 20))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    expected = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    got = next_token_loss(model, model.hidden(inputs), targets)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    parameters = dict(model.named_parameters())
    assert ("lm_head.weight" in parameters) is not tied
    mine, theirs = (torch.autograd.grad(loss, list(parameters.values())) for loss in (got, expected))
    for name, one, other in zip(parameters, mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
