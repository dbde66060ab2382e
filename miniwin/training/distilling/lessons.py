"""What a pass of the student is compared with, and the losses. One class for each kind of comparison.

A lesson is what the teacher says of one pass. The student listens to itself while it runs forward (`listening`), and
the losses are taken part by part of a mixture (batch_loss.py).

Shapes: b rows of this process, r rows of a part, N tokens, C hidden_size, C' the teacher's, L layers of the student.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from miniwin.blocks import Decoder
from miniwin.data.rows import IGNORED
from miniwin.training.distilling.head_loss import Head, taught_loss
from miniwin.training.loss import next_token_loss


class Learnt(NamedTuple):
    """loss: what is minimised. next_token, distillation: its parts, without gradients. All scalars."""

    loss: Tensor
    next_token: Tensor
    distillation: Tensor


class Lesson(Protocol):
    """What the teacher says of a pass."""

    def listening(self, decoder: Decoder) -> AbstractContextManager[Any]:
        """Surrounds the student's pass forward."""

    def part(self, decoder: Decoder, rows: slice, hidden: Tensor, targets: Tensor) -> Learnt:
        """The losses of some rows of the pass. hidden (r, N, C): the student's. targets (r, N)."""


class OfLogits:
    """The distribution of the next token. states (b, N, C'): the teacher's, the input of its head."""

    def __init__(self, states: Tensor, head: Head, temperature: float, weight: float) -> None:
        self.states, self.head, self.temperature, self.weight = states, head, temperature, weight

    def listening(self, decoder: Decoder) -> AbstractContextManager[Any]:
        return nullcontext()

    def part(self, decoder: Decoder, rows: slice, hidden: Tensor, targets: Tensor) -> Learnt:
        how = self.temperature, self.weight
        own, said = head_of(decoder), self.states[rows]
        return Learnt(*taught_loss(hidden, own, targets, said, self.head, *how, product=decoder.product))


class OfLayers:
    """Outputs of layers, or of their attentions. said: L of (b, N, C), the teacher's; None: it says nothing of it."""

    def __init__(self, said: Sequence[Tensor], kind: str, weight: float) -> None:
        self.said, self.kind, self.weight = said, kind, weight
        self.heard: list[Tensor] = []

    def listening(self, decoder: Decoder) -> AbstractContextManager[Any]:
        self.heard = []
        return outputs(decoder, self.kind, self.heard)

    def part(self, decoder: Decoder, rows: slice, hidden: Tensor, targets: Tensor) -> Learnt:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.weight < 1):
            next_token = next_token_loss(decoder, hidden, targets)
        counted = targets != IGNORED
        pairs = zip(self.heard, self.said, strict=True)
        found = torch.stack([DISTANCES[self.kind](own[rows], said[rows], counted) for own, said in pairs])  # (L,)
        distance = found.mean()
        loss = distance if self.weight == 1 else (1 - self.weight) * next_token + self.weight * distance
        return Learnt(loss, next_token.detach(), distance.detach())


def head_of(decoder: Decoder) -> Head:
    """The head of a decoder."""
    return Head(decoder.head.weight, decoder.logit_scale, decoder.logit_softcap)


@contextmanager
def outputs(decoder: Decoder, kind: str, heard: list[Tensor]) -> Iterator[None]:
    """Append to `heard` what each layer puts out while the decoder runs, in order. kind: of the loss."""

    def hear(module: nn.Module, inputs: Any, output: Tensor) -> None:
        heard.append(output)

    hooks = [module.register_forward_hook(hear) for module in MODULES[kind](decoder)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def of_tokens(own: Tensor, said: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted tokens of |own - said|^2 / |said|^2: own, said (r, N, C), counted (r, N) -> ()."""
    far, size = _squares(own, said)
    return _mean(far / size.clamp(min=torch.finfo(size.dtype).tiny), counted)


def of_rows(own: Tensor, said: Tensor, counted: Tensor) -> Tensor:
    """The same with |said|^2 in the mean over the row's counted tokens."""
    far, size = _squares(own, said)
    mean = (size * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)  # (r, 1)
    return _mean(far / mean.clamp(min=torch.finfo(size.dtype).tiny), counted)


def _squares(own: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """(|own - said|^2, |said|^2), (r, N) each, in float32 at least."""
    wide = torch.float64 if own.dtype == torch.float64 else torch.float32
    with torch.autocast(own.device.type, enabled=False):
        own, said = own.to(wide), said.detach().to(wide)
        return (own - said).square().sum(-1), said.square().sum(-1)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0.0).sum() / counted.sum()  # NaN where nothing counts, as the next-token loss


DISTANCES = {"hidden": of_tokens, "attention_output": of_rows}
MODULES: dict[str, Any] = {
    "hidden": lambda decoder: list(decoder.layers),
    "attention_output": lambda decoder: decoder.attentions,
}
