"""Initialisation: every matrix N(0, std), and the projections that write into the residual stream divided by
sqrt(2 * num_layers) so that its variance does not grow with depth (GPT-2, Radford et al. 2019, section 2.3).

Norm gains and logit scales keep the values that their modules set.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from miniwin.blocks.decoder import Decoder
from miniwin.blocks.spec import PositiveReal, Strict

RESIDUAL_WRITERS = ("o_proj", "down_proj")


class InitSpec(Strict):
    """`init: {type: normal, std: 0.02}`"""

    type: Literal["normal"] = "normal"
    std: PositiveReal = 0.02
    depth_scaled: bool = True

    @torch.no_grad()
    def apply(self, decoder: Decoder) -> None:
        shrink = (2 * len(decoder.layers)) ** -0.5 if self.depth_scaled else 1.0
        for name, module in decoder.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                writes = name.rpartition(".")[2] in RESIDUAL_WRITERS
                nn.init.normal_(module.weight, std=self.std * (shrink if writes else 1.0))
