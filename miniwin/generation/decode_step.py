"""The fastest way to decode token by token: one native call a token on a CPU, one CUDA graph on a GPU.

Not every model can be decoded so; the others are called as usual. `MINIWIN_NATIVE=0` and `MINIWIN_CUDA_GRAPHS=0` switch
the two off.
"""

from __future__ import annotations

import os
import warnings

from torch import nn

from miniwin.blocks import Cache, Decoder
from miniwin.blocks.decode.graph_step import FixedStep
from miniwin.blocks.decode.graph_step import declines as no_graph
from miniwin.blocks.decode.native_step import QuickStep
from miniwin.blocks.decode.native_step import declines as not_in_one_call
from miniwin.inference import InferenceModel, has_plain_forward
from miniwin.specs import UserError

SWITCH = "MINIWIN_CUDA_GRAPHS"
GRAPHED = ("cuda",)  # devices
SOME = 8  # new tokens: for fewer, getting ready for one call takes longer than it saves
MANY = 64  # the same for a graph
LONG = 1 << 15  # tokens in all: beyond, reading the cache costs more than launching kernels


def fastest_step(
    model: nn.Module | InferenceModel, cache: Cache, new_tokens: int, keep: bool = True
) -> QuickStep | FixedStep | None:
    """What decodes `new_tokens` more tokens the fastest; None where that is the model itself.

    Its `step(ids)` takes ids (B, 1) and gives logits (B, 1, V). model: a decoder, or a model that has one. keep: the
    cache has to hold the new tokens afterwards, which rules out a graph, for that works on a copy.

    Raises:
        UserError: the switch says neither 0 nor 1.
    """
    decoder = getattr(model, "decoder", model)
    if type(decoder) is not Decoder or own_forward(model):  # its forward may do something else
        return None
    device = decoder.embed_tokens.weight.device.type
    if device == "cpu" and new_tokens >= SOME and not_in_one_call(decoder, cache) is None:
        return QuickStep(decoder, cache)
    if device not in GRAPHED or keep or not _wanted() or cache.batch_size > 1:
        return None
    capacity = cache.length + new_tokens
    if new_tokens < MANY or capacity > LONG or no_graph(decoder, cache) is not None:
        return None
    try:
        return FixedStep(decoder, cache, capacity)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        warnings.warn(f"decoding goes on without a CUDA graph: {type(error).__name__}: {first}", stacklevel=2)
        return None


def own_forward(model: nn.Module | InferenceModel) -> bool:
    """Whether code that is not ours has to run at every token: a hook of some module, the forward of a subclass, or a
    forward that was put into an instance."""
    if not has_plain_forward(model) or nn.modules.module._has_any_global_hook():
        return True
    return any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in model.modules()
    )


def _wanted() -> bool:
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise UserError(f"{SWITCH}: got {switch!r} in the environment; expected 0, to decode without graphs, or 1")
    return switch == "1"
