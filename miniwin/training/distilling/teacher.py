"""The teacher at work: it says what a pass is compared with.

It is in eval mode, takes no gradients, and is no part of the model that is trained, nor of its checkpoints. It computes
in the precision of the run (`dtype`), and what it says of a pass is a function of the pass alone. Every process of a
run has all of it, whatever shares the student (engines.py).

Shapes: b rows of this process, N tokens, C' the teacher's hidden_size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.matmul_library import Product, choose
from miniwin.specs import TrainSpec
from miniwin.training.distilling.cache import StateCache
from miniwin.training.distilling.check import layer_map
from miniwin.training.distilling.lessons import Lesson, OfLayers, OfLogits, head_of, outputs
from miniwin.training.origin import Origin


class Teacher:
    """The model of `origin`, as it teaches a run of `spec`. layers: of the student. product: see matmul_choice.py.

    Raises:
        UserError: the weights are damaged, or have changed since they were hashed.
    """

    def __init__(
        self, origin: Origin, spec: TrainSpec, layers: int, device: torch.device, product: Product | None
    ) -> None:
        assert spec.distill is not None
        self.origin, self.spec, self.how, self.device = origin, spec, spec.distill, device
        self.decoder = origin.decoder().to(device, torch.float32).eval().requires_grad_(False)
        if product is not None:
            choose(self.decoder, product)
        self.layers = layer_map(self.how, layers, len(self.decoder.layers))
        self.dtype = torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32
        self.cache = StateCache(self.how.cache, self._about(product)) if self.how.cache else None

    def _about(self, product: Product | None) -> dict[str, Any]:
        return {
            "teacher": self.origin.sha256,
            "spec_hash": self.origin.spec.hash,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "products": product,
        }

    def begin(self, steps: int) -> Teacher:
        """See to it that there is room in the cache. steps: those that the run has before it.

        Raises:
            UserError: there is none.
        """
        if self.cache is not None:
            size = self.dtype.itemsize * self.decoder.embed_tokens.embedding_dim
            self.cache.open(steps * self.spec.tokens_per_step * size)
        return self

    def lesson(self, inputs: Tensor, documents: Tensor | None) -> Lesson:
        """What it says of a pass. inputs (b, N): token ids. documents (b, N): the number of each token's document."""
        if self.how.loss == "kl":
            return OfLogits(
                self._states(inputs, documents), head_of(self.decoder), self.how.temperature, self.how.weight
            )
        heard: list[Tensor] = []
        with outputs(self.decoder, self.how.loss, heard):
            self._hidden(inputs, documents)
        return OfLayers([heard[layer] for layer in self.layers], self.how.loss, self.how.weight)

    def _states(self, inputs: Tensor, documents: Tensor | None) -> Tensor:
        """(b, N, C'): the input of the teacher's head."""
        if self.cache is None:
            return self._hidden(inputs, documents).to(self.dtype)
        path = self.cache.path(inputs, documents)
        shape = (*inputs.shape, self.decoder.embed_tokens.embedding_dim)
        found = self.cache.get(path, shape, self.dtype)
        if found is None:
            found = self._hidden(inputs, documents).to(self.dtype)
            self.cache.put(path, found)
        return found.to(self.device)

    def _hidden(self, inputs: Tensor, documents: Tensor | None) -> Tensor:
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16),
        ):
            return self.decoder.hidden(inputs, documents=documents)
