"""The fastest way to decode token by token: one native call a token on a CPU, one CUDA graph on a GPU.

Not every model can be decoded so. The others are called as usual. `MINIWIN_NATIVE=0` and `MINIWIN_CUDA_GRAPHS=0` switch
the two ways off.
"""

from __future__ import annotations

import os
import warnings

from torch import nn

from miniwin.blocks import Cache, Decoder
from miniwin.blocks.decode.graph_step import GraphStep
from miniwin.blocks.decode.graph_step import declines as no_graph
from miniwin.blocks.decode.native_step import NativeStep
from miniwin.blocks.decode.native_step import declines as not_in_one_call
from miniwin.inference import InferenceModel, has_plain_forward
from miniwin.specs import UserError

SWITCH = "MINIWIN_CUDA_GRAPHS"
GRAPHED = ("cuda",)  # devices with graphs
SOME = 8  # new tokens: for fewer, preparing the native call takes longer than it saves
MANY = 64  # new tokens: for fewer, capturing a graph takes longer than it saves
LONG = 1 << 15  # tokens in all: beyond this, reading the cache takes longer than launching kernels


def fastest_step(
    model: nn.Module | InferenceModel, cache: Cache, new_tokens: int, keep: bool = True
) -> NativeStep | GraphStep | None:
    """The fastest way to decode `new_tokens` more tokens. None: call the model itself.

    The `step(ids)` of the result takes ids (B, 1) and returns logits (B, 1, V).

    model: a decoder, or a model that has one. keep: whether the cache must hold the new tokens afterwards. This rules
    out a graph, which works on a copy of the cache.

    Raises:
        UserError: MINIWIN_CUDA_GRAPHS is neither 0 nor 1.
    """
    decoder = getattr(model, "decoder", model)
    if type(decoder) is not Decoder or own_forward(model):  # such a forward may do more than ours
        return None
    device = decoder.embed_tokens.weight.device.type
    if device == "cpu" and new_tokens >= SOME and not_in_one_call(decoder, cache) is None:
        return NativeStep(decoder, cache)
    if device not in GRAPHED or keep or not _wanted() or cache.batch_size > 1:
        return None
    capacity = cache.length + new_tokens
    if new_tokens < MANY or capacity > LONG or no_graph(decoder, cache) is not None:
        return None
    try:
        return GraphStep(decoder, cache, capacity)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        warnings.warn(f"decoding goes on without a CUDA graph: {type(error).__name__}: {first}", stacklevel=2)
        return None


def own_forward(model: nn.Module | InferenceModel) -> bool:
    """Whether code that is not ours has to run at every token: a hook on a module, the forward of a subclass, or a
    forward that was set on an instance."""
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
