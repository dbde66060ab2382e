"""One pass forward as one module, so that torch's engines see where it begins and ends (engines.py).

Shapes: B rows of this process, N tokens, C hidden_size, P parts of a mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from miniwin.blocks import Decoder
from miniwin.training.batch_loss import Share, batch_loss
from miniwin.training.distilling.lessons import Lesson


class PassLosses(NamedTuple):
    """loss (): what is minimised, but for the auxiliary loss. next_token (), distillation (): its parts, without
    gradients; the first is all of it without a teacher. parts (P,): the next-token losses of a mixture's parts.
    auxiliary (): None for a model without one.
    """

    loss: Tensor
    next_token: Tensor
    distillation: Tensor | None
    parts: Tensor
    auxiliary: Tensor | None


class OnePass(nn.Module):
    """Tokens in, losses out. Calling it, and not `forward`, runs what an engine has hung on it."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        documents: Tensor | None,
        parts: Sequence[Share],
        lesson: Lesson | None = None,
    ) -> PassLosses:
        """The losses of inputs and targets (B, N).

        documents (B, N): the number of each token's document, where documents are kept apart. lesson: what a teacher
        says of the pass.
        """
        with nullcontext() if lesson is None else lesson.listening(self.decoder):
            hidden = self.decoder.hidden(inputs, documents=documents)  # (B, N, C)
        return PassLosses(
            *batch_loss(self.decoder, hidden, targets, parts, lesson), auxiliary=self.decoder.auxiliary_loss()
        )
