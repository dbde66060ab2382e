"""What trains a model, and writes and reads its checkpoints: one process, and what all engines have in common.

Methods that are said to be called together are called by all processes at the same moment: they talk to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon

from miniwin import runs
from miniwin.blocks import Decoder
from miniwin.blocks.matmul_library import Product, choose
from miniwin.checkpoint import load_checkpoint, save_checkpoint
from miniwin.language_model import LanguageModel
from miniwin.specs import ModelSpec, TrainSpec
from miniwin.training.adapters import plain_weights
from miniwin.training.compilation import compile_layers
from miniwin.training.distributed import Group
from miniwin.training.one_pass import OnePass
from miniwin.training.ready import make_ready
from miniwin.training.start import Start


class Engine:
    """One process. one_pass: the pass forward, called as `OnePass.forward` says.

    start: what the first weights are, in the first process; None: random ones.
    """

    muon: type[Muon] = Muon

    def __init__(
        self,
        model: ModelSpec,
        spec: TrainSpec,
        group: Group,
        device: torch.device,
        product: Product | None,
        start: Start | None = None,
    ) -> None:
        self.train_spec, self.start = spec, start
        self.spec, self.group, self.device, self.product = model, group, device, product
        torch.manual_seed(spec.seed)
        self.decoder = self.build()
        if product is not None:
            choose(self.decoder, product)
        if spec.compile:
            compile_layers(self.decoder, device)
        self.one_pass: nn.Module = OnePass(self.decoder)

    def build(self) -> Decoder:
        """The decoder, drawn on the CPU: the same weights whatever the device."""
        return make_ready(self.spec, self.train_spec, self.start).to(self.device)

    def of_pass(self, last: bool) -> AbstractContextManager[Any]:
        """Surrounds a pass forward and backward. last: of the step; gradients are wanted after it."""
        return nullcontext()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float | None) -> float:
        """Scale the gradients so that their norm is at most `limit`. Returns the norm before. Called together."""
        return float(nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit))

    def weights(self) -> dict[str, Tensor] | None:
        """All weights, adapters merged, in the first process; None in the others. Called together."""
        return plain_weights(self.decoder) if self.group.leads else None

    def whole(self, model: LanguageModel) -> LanguageModel | None:
        """`model` with all weights, for an evaluation, in the first process; None in the others. Called together."""
        return model if self.group.leads else None

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint. Called together."""
        if self.group.leads:
            save_checkpoint(path, state)
            runs.remove_shards(path.parent, of=path.name)

    def load(self, path: Path, optimizer: Any) -> dict[str, Any]:
        """What `save` of any engine wrote, as the optimizer and the decoder take it. Called together."""
        return load_checkpoint(path, self.device)
