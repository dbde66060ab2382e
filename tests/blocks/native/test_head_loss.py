"""The kernel of the head's loss, against cross-entropy of all the logits in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from miniwin.blocks import native
from miniwin.blocks.native import head_loss
from miniwin.training.loss import IGNORED, linear_cross_entropy

pytestmark = pytest.mark.skipif(not native.has_amx(), reason="its kernel is for AMX, and is not here")

# Tokens, hidden_size, vocabulary, tokens of a chunk: less than a block, odd ends, a part of a slice, several slices.
SHAPES = [(1, 32, 32, 512), (37, 64, 96, 64), (100, 32, 288, 33), (513, 96, 544, 512), (70, 544, 1024, 32)]


def drawn(tokens: int, size: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head and targets; the targets include the first and the last token of the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    h, w = torch.randn(tokens, size, generator=generator), torch.randn(vocabulary, size, generator=generator)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    targets[-1], targets[tokens // 2] = 0, vocabulary - 1
    return h.bfloat16(), (3 * size**-0.5 * w).bfloat16(), targets


def exact(h: Tensor, w: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    wide, head = h.double().requires_grad_(), w.double().requires_grad_()
    losses = functional.cross_entropy(scale * wide @ head.t(), targets, reduction="none", ignore_index=IGNORED)
    return losses.detach(), *torch.autograd.grad(losses.sum() / scale, (wide, head))


def far(got: Tensor | None, want: Tensor) -> float:
    assert got is not None
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients(shape: tuple[int, int, int, int], scale: float) -> None:
    (*sizes, chunk), both = shape, (True, True)
    h, w, targets = drawn(*sizes)
    targets[1::5] = IGNORED
    losses, grad_h, grad_w = head_loss.head_loss(h, w, targets, IGNORED, scale, chunk, both)
    want, want_h, want_w = exact(h, w, targets, scale)
    torch.testing.assert_close(losses.double(), want, rtol=1e-5, atol=1e-6)
    assert losses.dtype == torch.float32 and not losses[1::5].any()
    assert grad_h is not None and grad_h.dtype == torch.bfloat16 and not grad_h[1::5].any()
    # Probabilities are rounded to bfloat16 (8 bits) on their way into the products, and grad_h once more.
    assert far(grad_h, want_h) < 4e-3 and far(grad_w, want_w) < 3e-3


def test_logits_are_not_rounded_on_their_way_to_the_loss() -> None:
    """In bfloat16 a logit of 100 would be off by up to a quarter."""
    h, w, targets = drawn(64, 128, 512)
    h = 30 * h
    losses = head_loss.head_loss(h, w, targets, IGNORED, 1.0, 64, (False, False))[0]
    assert float(losses.max()) > 100
    torch.testing.assert_close(losses.double(), exact(h, w, targets, 1.0)[0], rtol=1e-5, atol=1e-4)


def test_what_nobody_wants_is_not_computed() -> None:
    h, w, targets = drawn(40, 64, 320)
    both = head_loss.head_loss(h, w, targets, IGNORED, 1.0, 512, (True, True))
    only_h = head_loss.head_loss(h, w, targets, IGNORED, 1.0, 512, (True, False))
    only_w = head_loss.head_loss(h, w, targets, IGNORED, 1.0, 512, (False, True))
    assert only_h[2] is None and only_w[1] is None
    for one, other in ((only_h[0], both[0]), (only_h[1], both[1]), (only_w[2], both[2])):
        assert one is not None and other is not None and torch.equal(one, other)


def test_any_number_of_threads_finds_the_same() -> None:
    """The gradient of h is summed over threads and may round differently; all else is equal to the last bit."""
    h, w, targets = drawn(300, 64, 1536)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 7, 2):
        torch.set_num_threads(threads)
        found.append(head_loss.head_loss(h, w, targets, IGNORED, 1.0, 128, (True, True)))
    torch.set_num_threads(before)
    for losses, grad_h, grad_w in found[1:]:
        assert torch.equal(losses, found[0][0]) and grad_w is not None and torch.equal(grad_w, found[0][2])  # type: ignore[arg-type]
        torch.testing.assert_close(grad_h, found[0][1], rtol=1e-2, atol=1e-3)
    assert torch.equal(found[1][1], found[3][1])  # type: ignore[arg-type]


def test_a_token_that_is_no_number_is_not_hidden_and_harms_no_other() -> None:
    h, w, targets = drawn(50, 32, 544)
    h[7, 3] = torch.nan
    losses, grad_h, _ = head_loss.head_loss(h, w, targets, IGNORED, 1.0, 512, (True, True))
    assert losses.isnan().nonzero().flatten().tolist() == [7]
    assert grad_h is not None and grad_h.isnan().any(1).nonzero().flatten().tolist() == [7]


def test_large_logits_and_hopeless_targets() -> None:
    h, w, targets = drawn(40, 64, 320)
    h = 1000 * h
    losses, grad_h, grad_w = head_loss.head_loss(h, w, targets, IGNORED, 1.0, 512, (True, True))
    want, want_h, want_w = exact(h, w, targets, 1.0)
    torch.testing.assert_close(losses.double(), want, rtol=1e-5, atol=1e-2)
    assert far(grad_h, want_h) < 4e-3 and far(grad_w, want_w) < 4e-3


def test_no_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        miniwin_head_loss = staticmethod(lambda call: 1)

    monkeypatch.setattr(native, "_found", lambda: ("_amx", Library()))
    with pytest.raises(native.MemoryRefused, match="miniwin_head_loss: no memory; use fewer tokens at a time"):
        linear_cross_entropy(*drawn(40, 64, 320))


def test_the_loss_of_training_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the kernel the training loss is the same, up to bfloat16's rounding."""
    h, w, targets = drawn(70, 64, 320)
    targets[::7] = IGNORED
    calls, kernel = [], head_loss.head_loss
    monkeypatch.setattr(head_loss, "head_loss", lambda *given: calls.append(given) or kernel(*given))

    def found(scale: float | None, cap: float | None = None) -> list[Tensor]:
        hidden, head = h.float().requires_grad_(), w.float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = linear_cross_entropy(hidden, head, targets, scale, cap)
        return [loss.detach(), *torch.autograd.grad(3 * loss, (hidden, head))]

    with_it = [found(scale) for scale in (None, 0.5)]
    assert len(calls) == 2
    found(None, 5.0)
    linear_cross_entropy(h.float(), w.float(), targets)
    assert len(calls) == 2, "a soft cap, or products in float32"
    monkeypatch.setattr(head_loss, "fit", lambda *given: False)
    for scale, mine in zip((None, 0.5), with_it, strict=True):
        for one, other in zip(mine, found(scale), strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2 * float(other.abs().max()))
