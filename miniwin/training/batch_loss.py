"""The loss of a pass in one of several processes, so that the mean over the processes is that of the whole pass.

loss = w * (mean over the counted targets of this process),     w = count here * processes / count in all
"""

from __future__ import annotations

from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.training.loss import next_token_loss


def batch_loss(decoder: Decoder, hidden: Tensor, targets: Tensor, weight: float) -> Tensor:
    """hidden (B, N, C), targets (B, N) of this process -> () nats per token. weight: w above; 0 where none counts."""
    if weight == 0:
        return hidden.sum() * 0.0  # a mean over nothing has no gradient, and the other processes wait for one
    loss = next_token_loss(decoder, hidden, targets)
    return loss if weight == 1 else loss * weight
