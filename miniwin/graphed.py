"""Decoding by a CUDA graph: when it is worth recording one, and what happens where that fails.

`MINIWIN_CUDA_GRAPHS=0` goes without.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from miniwin.blocks import Cache
from miniwin.blocks.fixed_step import FixedStep, declines
from miniwin.specs import UserError

if TYPE_CHECKING:
    from miniwin.language_model import LanguageModel

SWITCH = "MINIWIN_CUDA_GRAPHS"
DEVICES = ("cuda",)
FEW = 64  # new tokens: for fewer, recording takes longer than it saves
LONG = 1 << 15  # tokens in all: beyond, reading the cache costs more than launching kernels


def fixed_step(model: LanguageModel, cache: Cache, new_tokens: int) -> FixedStep | None:
    """The way to decode so many more tokens after this cache, by one graph; None where the ordinary way is better.

    Raises:
        UserError: the switch says neither 0 nor 1.
    """
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise UserError(f"{SWITCH}: got {switch!r} in the environment; expected 0, to decode without graphs, or 1")
    if switch == "0" or model.device.type not in DEVICES or cache.batch_size > 1:
        return None
    capacity = cache.length + new_tokens
    if new_tokens < FEW or capacity > LONG or declines(model.decoder, cache) is not None:
        return None
    try:
        return FixedStep(model.decoder, cache, capacity)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        warnings.warn(f"decoding goes on without a CUDA graph: {type(error).__name__}: {first}", stacklevel=2)
        return None
