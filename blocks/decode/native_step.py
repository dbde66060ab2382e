"""Decoding on a CPU with one call for all layers (blocks/native/step.c), for models of blocks that the kernel knows.

A small model's step is mostly Python: about twenty operations a layer, each of which takes longer to call than to run.
Here all of them are one call. The encodings still compute positions, and what depends on positions alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import native
from miniwin.blocks.attention import Attention
from miniwin.blocks.attention.split import SplitAttention
from miniwin.blocks.attention_ops import cpu_native, may_use
from miniwin.blocks.cache import Cache, LayerCache
from miniwin.blocks.decode.native_decoder import NORMS, Context, NativeDecoder, projections
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.int8.weight import FEW, Int8Weight
from miniwin.blocks.layer import Layer
from miniwin.blocks.matmul_library import Linear
from miniwin.blocks.mlps.swiglu import SwiGLU
from miniwin.blocks.native import attention as kernels
from miniwin.blocks.native import step as native_step
from miniwin.blocks.norms.rmsnorm import RMSNorm
from miniwin.blocks.positions.base import PositionEncoding
from miniwin.blocks.positions.nope import Nope
from miniwin.blocks.positions.rope import Rope

PLACES = ("cpu", "meta")  # devices
ATTENTIONS = (Attention, SplitAttention)


class NativeStep:
    """Advances a warm cache as the model would: `step(ids)` (B, 1) -> logits (B, 1, V) float32. `steps(ids)` (1, N) ->
    (1, N, V) takes several tokens of one row: as so many steps to the last bit, in less time.

    The kernel holds the addresses of the weights, so the model must not change meanwhile.
    """

    def __init__(self, decoder: Decoder, cache: Cache) -> None:
        reason = declines(decoder, cache)
        assert reason is None, reason
        self.decoder, self.cache = decoder, cache
        self.native, self.context = NativeDecoder(decoder), Context(decoder, cache)
        self.pad: Tensor | None = None
        self.padding = self.least = 0  # tokens of padding in the row that has most, and least

    @torch.no_grad()
    def step(self, ids: Tensor) -> Tensor:
        self._look_at_padding()
        if any(self._out_of_order(part) for part in self.cache.parts):
            return self.decoder(ids, cache=self.cache, logits_to_keep=1)  # type: ignore[no-any-return]
        index = torch.tensor([[self.cache.length]], device="cpu")
        if self.pad is not None:
            index = index - self.pad.unsqueeze(1)  # (B, 1)
        return self._run(ids, index, 1).unsqueeze(1)  # (B, V) -> (B, 1, V)

    @torch.no_grad()
    def steps(self, ids: Tensor) -> Tensor:
        self._look_at_padding()
        assert len(ids) == self.cache.batch_size == 1
        if self.pad is not None or any(self._out_of_order(part) for part in self.cache.parts):
            return torch.cat([self.step(one) for one in ids.split(1, 1)], 1)
        tokens, start = ids.shape[1], self.cache.length
        index = torch.arange(start, start + tokens, device="cpu").unsqueeze(1)  # (N, 1), as of so many rows
        return self._run(ids, index, tokens).unsqueeze(0)  # (N, V) -> (1, N, V)

    def _run(self, ids: Tensor, index: Tensor, tokens: int) -> Tensor:
        """ids (B, 1), or (1, N) of one row; index (B or N, 1) of each token in its row. Returns logits (B or N, V)."""
        self.context.enter(tokens, self.pad, self.padding)
        try:
            logits = self.native.run(ids, index, [self.context], tokens, self.cache.length + 1)
        except BaseException:
            self.context.forget()
            raise
        # Last: an interrupted step leaves layers that are longer than the cache, which shows.
        self.cache.length += tokens
        return logits

    def _look_at_padding(self) -> None:
        if self.pad is not self.cache.pad:  # the first time, or when rows have left
            self.pad = self.cache.pad
            self.padding, self.least = (0, 0) if self.pad is None else (int(self.pad.max()), int(self.pad.min()))

    def _out_of_order(self, held: LayerCache) -> bool:
        """Whether rows see other slots than a first part that all have. A ring with this token still holds padding, but
        not in its first slots; or rows see another number of sink tokens; or this is a sink token."""
        tokens = held.length + 1
        if held.first is not None:
            gone = [
                max(0, min(tokens - pad - held.room(tokens), held.first.size)) for pad in (self.least, self.padding)
            ]
            if gone[0] != gone[1] or held.length - self.padding < held.first.size:
                return True
        return 0 < tokens - held.room(tokens) < self.padding


def declines(decoder: Decoder, cache: Cache) -> str | None:
    """Why one call cannot do a step; None if it can. The model may be on the meta device."""
    if native.missing() is not None:
        return native.missing()
    if not may_use(cpu_native):
        return "another attention backend is asked for"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if cache.given or cache.batch_size > FEW:
        return f"there are more than {FEW} rows, or positions that the caller gives"
    if decoder.embed_positions is not None:
        return "positions are added to the embeddings"
    for held in cache.parts:
        if not held.plain:
            return "a layer keeps more than keys and values"
        if held.stored[0].dtype not in native.CODES or held.stored[0].device.type not in PLACES:
            return f"a cache is of {held.stored[0].dtype} on {held.stored[0].device}"
    if not all(_readable(module) for module in decoder.modules() if isinstance(module, nn.Linear | nn.Embedding)):
        return "a matrix is neither float32 nor int8, or not a multiple of 16 wide"
    norms = [decoder.norm, *(getattr(layer, name, None) for layer in decoder.layers for name in NORMS)]
    if not all(norm is None or _is_rms(norm) for norm in norms):
        return "a norm is no RMSNorm, or not a multiple of 16 wide"
    for layer in decoder.layers:
        if type(layer) is not Layer or type(layer.attention) not in ATTENTIONS or type(layer.mlp) is not SwiGLU:
            return "a layer is not attention and then a SwiGLU"
        if layer.residual_scale is not None:
            return "what a layer adds is scaled"
        if not all(type(module) in (nn.Linear, Linear) for module in projections(layer)):
            return "a projection is more than a matrix"
        reason = _attention_declines(layer.attention)
        if reason is not None:
            return reason
    return None


def _attention_declines(attention: Attention) -> str | None:
    encoding = attention.position
    kind = type(encoding)
    if attention.by_order or attention.sinks is not None or attention.softcap is not None:
        return "attention is more than a softmax over the keys of a window"
    known = isinstance(encoding, Nope | Rope) and kind.encode in (PositionEncoding.encode, Rope.encode)
    if not known or kind.log_gates is not PositionEncoding.log_gates:
        return f"{kind.__name__} is no plain rotation"
    if isinstance(encoding, Rope) and not _turns_halves(encoding):
        return "its rotation is of neighbours, or of halves that are not a multiple of 16 wide"
    norms = (attention.q_norm, attention.k_norm)
    if attention.norms_whole or attention.norms_after or not all(n is None or _is_rms(n) for n in norms):
        return "queries and keys have another norm than an RMSNorm of each head before the rotation"
    heads, dim = attention.num_heads, attention.head_dim
    return kernels.unfit((1, 1, heads, dim), (1, 1, attention.num_kv_heads, dim))


def _turns_halves(encoding: Rope) -> bool:
    plain = type(encoding).turn is Rope.turn and not encoding.interleaved
    return plain and len(encoding._frequencies) % native_step.STEP == 0


def _is_rms(norm: nn.Module) -> bool:
    if type(norm) is not RMSNorm or norm.size % native_step.STEP:
        return False
    return norm.weight is None or norm.weight.dtype == torch.float32


def _readable(module: Any) -> bool:
    weight, bias = module.weight, getattr(module, "bias", None)
    if weight.shape[1] % native_step.STEP or not (bias is None or _plain(bias)):
        return False
    if isinstance(weight, Int8Weight):  # its dtype is that of the weights it stands for
        return weight.dtype == torch.float32 and weight.values8.device.type in PLACES
    return _plain(weight)


def _plain(weight: Tensor) -> bool:
    there = native.ordinary(weight) and weight.device.type in PLACES
    return there and weight.dtype == torch.float32 and weight.is_contiguous()
