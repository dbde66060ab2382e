"""The engines that train a model: one process, or one of torch's for several.

    Engine  one process (engine.py)
    ddp     `Replicated`: torch's DistributedDataParallel. Every process has the model (replicated.py).
    fsdp    `Sharded`: torch's fully_shard. Every process has a share of each parameter (sharded.py).

All give the same run, up to the order of sums, and any of them goes on from any other's checkpoint.
"""

from __future__ import annotations

from typing import Literal

import torch

from miniwin.blocks.matmul_library import Product
from miniwin.specs import ModelSpec, TrainSpec
from miniwin.training.distributed import Group
from miniwin.training.engine import Engine
from miniwin.training.replicated import Replicated
from miniwin.training.start import Start

Distributed = Literal["ddp", "fsdp"]


def make_engine(
    kind: Distributed,
    model: ModelSpec,
    spec: TrainSpec,
    group: Group,
    device: torch.device,
    product: Product | None,
    start: Start | None = None,
) -> Engine:
    """The engine of a run, with the first weights. Called together. Of one process, all kinds are plain training.

    product: see machine/matmul_choice.py. start: what the first weights are, in the first process; None: random ones.
    """
    if group.size == 1:
        return Engine(model, spec, group, device, product, start)
    if kind == "ddp":
        return Replicated(model, spec, group, device, product, start)
    from miniwin.training.sharded import Sharded

    return Sharded(model, spec, group, device, product, start)
