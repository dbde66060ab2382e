"""Training with torch's DistributedDataParallel: every process has the model (Li et al., arXiv 2006.15704)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from miniwin.blocks.matmul_library import Product
from miniwin.checkpoint import load_checkpoint
from miniwin.specs import ModelSpec, TrainSpec
from miniwin.training.distributed import Group
from miniwin.training.engine import Engine
from miniwin.training.experts import Experts
from miniwin.training.start import Start


class Replicated(Engine):
    """DistributedDataParallel: gradients are averaged in buckets while the backward still runs."""

    def __init__(
        self,
        model: ModelSpec,
        spec: TrainSpec,
        group: Group,
        device: torch.device,
        product: Product | None,
        start: Start | None = None,
    ) -> None:
        super().__init__(model, spec, group, device, product, start)
        self.experts = Experts(self.decoder, group)
        # This gives all the weights of the first: different machines may round the random draws differently.
        self.replicas = nn.parallel.DistributedDataParallel(self.one_pass, gradient_as_bucket_view=True)
        self.one_pass = self.replicas

    def of_pass(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.replicas.no_sync()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float | None) -> float:
        self.experts.drop_unused()
        return super().clip(parameters, limit)

    def load(self, path: Path, optimizer: Any) -> dict[str, Any]:
        """Read by the first process: another machine may not see the file."""
        state = load_checkpoint(path) if self.group.leads else {}
        return self.group.spread(state)
