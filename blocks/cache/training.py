"""Whether tokens enter a cache in training: gradients then reach the tokens of this call, not earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def in_training(new: Sequence[Tensor]) -> bool:
    """Whether gradients of these tensors are recorded."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in new)
