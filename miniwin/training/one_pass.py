"""One pass forward as one module, so that torch's engines see where it begins and ends (engines.py).

Shapes: B rows of this process, N tokens, C hidden_size, P parts of a mixture.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from miniwin.blocks import Decoder
from miniwin.training.batch_loss import Share, batch_loss


class OnePass(nn.Module):
    """Tokens in, losses out. Calling it, and not `forward`, runs what an engine has hung on it."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, inputs: Tensor, targets: Tensor, documents: Tensor | None, parts: Sequence[Share]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(loss (), losses of the parts (P,), auxiliary loss ()) of inputs and targets (B, N).

        documents (B, N): the number of each token's document, where documents are kept apart. The auxiliary loss is
        None for a model without one.
        """
        hidden = self.decoder.hidden(inputs, documents=documents)  # (B, N, C)
        loss, losses = batch_loss(self.decoder, hidden, targets, parts)
        return loss, losses, self.decoder.auxiliary_loss()
