"""Initialisation: every matrix N(0, std), or N(0, std / sqrt(inputs)) with `type: fan-in`. Projections that write into
the residual stream are divided by sqrt(2 * num_layers), so that its variance does not grow with depth (GPT-2, Radford
et al. 2019, section 2.3). With `embedding_std` near 1 a token's own embedding is not drowned by what the first layers
add.

A module's class attribute `residual_writer` names its projection that writes into the stream. Biases of projections
start at zero. Norm gains, logit scales and the like keep the values that their modules set.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import nn

from miniwin.blocks.decoder import Decoder
from miniwin.blocks.spec import PositiveReal, Strict


class InitSpec(Strict):
    """`init: {type: normal, std: 0.02}`, or `{type: fan-in, std: 0.7, embedding_std: 1.0}`"""

    LATER: ClassVar[frozenset[str]] = frozenset({"embedding_std"})

    type: Literal["normal", "fan-in"] = "normal"
    std: PositiveReal = 0.02
    depth_scaled: bool = True
    embedding_std: PositiveReal | None = None

    @torch.no_grad()
    def apply(self, decoder: Decoder) -> None:
        shrink = (2 * len(decoder.layers)) ** -0.5 if self.depth_scaled else 1.0
        named = [(module, getattr(module, "residual_writer", None)) for module in decoder.modules()]
        writers = {getattr(module, name) for module, name in named if name is not None}
        for module in decoder.modules():
            if isinstance(module, nn.Embedding) and self.embedding_std is not None:
                nn.init.normal_(module.weight, std=self.embedding_std)
            elif isinstance(module, (nn.Linear, nn.Embedding)):
                std = self.std if self.type == "normal" else self.std / math.sqrt(module.weight.shape[1])
                nn.init.normal_(module.weight, std=std * (shrink if module in writers else 1.0))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
